"""comask: federated Adam with one shared sparse mask, counted in real bytes.

```python
import comask

dataset = comask.load_dataset("fashion-mnist-mini")
federation = comask.make_federation(dataset, "dirichlet:0.1", 20, seed=0)
algorithm = comask.make_algorithm("fedadam-ssm", density=0.05)
model = functools.partial(comask.build_model, "cnn", dataset, seed=0)
for record in comask.simulate(algorithm, federation, model, rounds=10, seed=0):
    print(record.round, record.uplink_bytes, record.test_accuracy)
```

Importing this package imports nothing heavy: each public name is loaded when it is first used, and a server that decodes
and aggregates never loads torch.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comask.aggregate import WeightedSum
    from comask.algorithms import ALGORITHMS, Algorithm, algorithm_options, make_algorithm
    from comask.data import Dataset, Federation, load_dataset, make_federation
    from comask.errors import ComaskError, ConfigError, PayloadError
    from comask.flat import FlatModel
    from comask.hyperparams import AdamConfig, GradientConfig, SGDConfig
    from comask.masks import MASK_RULES, num_kept, top_k
    from comask.models import MODELS, build_model
    from comask.optim import LocalAdam, LocalSGD
    from comask.seeding import derive_seed
    from comask.session import ClientRound
    from comask.simulation import RoundRecord, Simulation, simulate
    from comask.state import ModelState
    from comask.wire import CODECS, Block, Codec, ParamLayout, PayloadInfo, Update, decode, encode, inspect

__version__ = "0.1.0"

_HOMES = MappingProxyType(
    {
        "comask.aggregate": ("WeightedSum",),
        "comask.algorithms": ("ALGORITHMS", "Algorithm", "algorithm_options", "make_algorithm"),
        "comask.data": ("Dataset", "Federation", "load_dataset", "make_federation"),
        "comask.errors": ("ComaskError", "ConfigError", "PayloadError"),
        "comask.flat": ("FlatModel",),
        "comask.hyperparams": ("AdamConfig", "GradientConfig", "SGDConfig"),
        "comask.masks": ("MASK_RULES", "num_kept", "top_k"),
        "comask.models": ("MODELS", "build_model"),
        "comask.optim": ("LocalAdam", "LocalSGD"),
        "comask.seeding": ("derive_seed",),
        "comask.session": ("ClientRound",),
        "comask.simulation": ("RoundRecord", "Simulation", "simulate"),
        "comask.state": ("ModelState",),
        "comask.wire": (
            "CODECS",
            "Block",
            "Codec",
            "ParamLayout",
            "PayloadInfo",
            "Update",
            "decode",
            "encode",
            "inspect",
        ),
    }
)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ALGORITHMS",
    "CODECS",
    "MASK_RULES",
    "MODELS",
    "AdamConfig",
    "Algorithm",
    "Block",
    "ClientRound",
    "Codec",
    "ComaskError",
    "ConfigError",
    "Dataset",
    "Federation",
    "FlatModel",
    "GradientConfig",
    "LocalAdam",
    "LocalSGD",
    "ModelState",
    "ParamLayout",
    "PayloadError",
    "PayloadInfo",
    "RoundRecord",
    "SGDConfig",
    "Simulation",
    "Update",
    "WeightedSum",
    "__version__",
    "algorithm_options",
    "build_model",
    "decode",
    "derive_seed",
    "encode",
    "inspect",
    "load_dataset",
    "make_algorithm",
    "make_federation",
    "num_kept",
    "simulate",
    "top_k",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home the first time it is used."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'comask' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from comask.errors import MissingExtraError  # noqa: PLC0415 -- only where something is missing

        raise MissingExtraError("torch", "train") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
