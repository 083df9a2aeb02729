"""Who holds which training samples: the rules that turn a data set into a federation.

The label of an image is its class; the label of a text sample is its natural client (the speaker), since next-character
targets have no class of their own. A rule is written as a string: `iid`, `dirichlet:0.1`, `shards:2`, `natural`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Dataset, Federation
from comask.errors import ConfigError, UnknownNameError
from comask.seeding import derive_rng

Positions = NDArray[np.int64]

PARTITIONS: Mapping[str, str] = MappingProxyType(
    {
        "iid": "equal random parts",
        "dirichlet:A": "each class is divided in proportions drawn from Dirichlet(A); the smaller A > 0, the more uneven",
        "shards:S": "samples sorted by class and cut into equal shards; S >= 1 random shards a client",
        "natural": "the data set's own clients, such as the speakers of a play",
    }
)
"""Every rule, and what it does."""

_FORMS = {form.partition(":")[0]: form for form in PARTITIONS}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def parse_partition(partition: str) -> tuple[str, float]:
    """Split a rule into its name and its parameter (0 where it has none).

    Raises:
        UnknownNameError: If there is no such rule.
        ConfigError: If the parameter is missing, superfluous or not allowed.
    """
    name, colon, text = partition.partition(":")
    if name not in _FORMS:
        raise UnknownNameError("partition", name, _FORMS)
    if ":" not in _FORMS[name]:
        if colon:
            raise ConfigError(f"partition {partition!r}: {name!r} takes no parameter; write {name!r}.")
        return name, 0.0
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if name == "dirichlet" and not 0 < value < math.inf:
        raise ConfigError(
            f"partition {partition!r}: A in 'dirichlet:A' must be a finite number above 0, got {text!r}."
        )
    if name == "shards" and not (text.isdecimal() and 1 <= value < math.inf):
        raise ConfigError(
            f"partition {partition!r}: S in 'shards:S' must be a whole number of at least 1, got {text!r}."
        )
    return name, value


def sample_labels(dataset: Dataset) -> NDArray[np.int64]:
    """Return the label of each training sample, shape `(n,)`: the class of an image, the natural client of a text.

    Raises:
        ConfigError: If it is a text without natural clients.
    """
    if dataset.task == "image":
        return dataset.train_targets.astype(np.int64)
    if dataset.groups is None:
        raise ConfigError(
            f"Data set {dataset.name!r} is a text without natural clients: its samples have no labels. Use 'iid'."
        )
    return dataset.groups


def make_federation(
    dataset: Dataset, partition: str, num_clients: int | None, *, seed: int, min_samples: int = 1
) -> Federation:
    """Divide the training samples among clients. No sample is held twice.

    - `iid`: sizes differ by at most one; all samples are assigned.
    - `dirichlet:A`: for each class, the clients' shares of it are one draw from a symmetric Dirichlet(A) over the
      clients, as in Yurochkin et al. (ICML 2019) and Li et al. (NIID-Bench, ICDE 2022). All samples are assigned, and
      sizes differ as well as labels. (The other common variant, Hsu et al. 2019, draws each client's label mix at equal
      sizes, and must leave samples out or repeat them.) One draw is made. Clients below `min_samples` then take what
      they lack from the largest class of the then largest client: almost all clients stay exactly as drawn, where
      drawing again until all are large enough would bend the distribution and, for many clients, never end.
    - `shards:S`: McMahan et al. (AISTATS 2017): sorted by label, cut into `S * num_clients` shards whose sizes differ by
      at most one, `S` random ones a client; all samples are assigned.
    - `natural`: the data set's own clients that have at least `min_samples` samples: all of them, or the `num_clients`
      largest (ties to the lower group number), in order of group number. Samples of the other clients are not used.

    Args:
        dataset: The data.
        partition: The rule, one of `PARTITIONS` with its parameter filled in.
        num_clients: How many clients; None only for `natural`, where it means all.
        seed: The run's seed; the same arguments give the same federation.
        min_samples: The least number of samples a client may hold.

    Raises:
        UnknownNameError: If there is no such rule.
        ConfigError: If an argument is not allowed or the data set cannot be divided so.
    """
    name, parameter = parse_partition(partition)
    if min_samples < 1:
        raise ConfigError(f"min_samples must be at least 1, got {min_samples}.")
    if num_clients is not None and num_clients < 1:
        raise ConfigError(f"num_clients must be at least 1, got {num_clients}.")
    if name == "natural":
        return Federation(dataset, _natural(dataset, num_clients, min_samples), partition)
    if num_clients is None:
        raise ConfigError(
            f"num_clients must be given for partition {partition!r}; only 'natural' knows how many clients there are."
        )
    num_samples = len(dataset.train_targets)
    if num_clients * min_samples > num_samples:
        raise ConfigError(
            f"num_clients = {num_clients} with min_samples = {min_samples} needs {num_clients * min_samples} samples; "
            f"{dataset.name!r} has {num_samples}."
        )
    labels = np.zeros(num_samples, np.int64) if name == "iid" else sample_labels(dataset)
    rng = derive_rng(seed, "partition", name, repr(parameter), num_clients)
    clients = _RULES[name](labels, parameter, num_clients, rng)
    _fill_up(clients, labels, min_samples)
    return Federation(dataset, tuple(np.sort(client) for client in clients), partition)


def class_table(federation: Federation) -> Positions:
    """Count each client's samples of each label (`sample_labels`): shape `(clients, labels)`."""
    labels = sample_labels(federation.dataset)
    width = (
        federation.dataset.num_classes
        if federation.dataset.task == "image"
        else int(labels.max(initial=-1)) + 1
    )
    return np.stack([np.bincount(labels[client], minlength=width) for client in federation.clients])


def _iid(labels: Positions, _parameter: float, num_clients: int, rng: np.random.Generator) -> list[Positions]:
    return np.array_split(rng.permutation(len(labels)), num_clients)


def _dirichlet(
    labels: Positions, concentration: float, num_clients: int, rng: np.random.Generator
) -> list[Positions]:
    parts: list[list[Positions]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_clients, concentration))
        # Cutting at rounded cumulated shares assigns every sample, which rounding each share would not.
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _shards(
    labels: Positions, per_client: float, num_clients: int, rng: np.random.Generator
) -> list[Positions]:
    per_client = int(per_client)
    num_shards = per_client * num_clients
    if num_shards > len(labels):
        raise ConfigError(
            f"partition 'shards:{per_client}' cuts {num_shards} shards for num_clients = {num_clients}, "
            f"but there are only {len(labels)} samples."
        )
    shards = np.array_split(np.argsort(labels, kind="stable"), num_shards)
    dealt = rng.permutation(num_shards).reshape(num_clients, per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


_RULES: Mapping[str, Callable[[Positions, float, int, np.random.Generator], list[Positions]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
}


def _natural(dataset: Dataset, num_clients: int | None, min_samples: int) -> tuple[Positions, ...]:
    if dataset.groups is None:
        raise ConfigError(
            f"partition 'natural': data set {dataset.name!r} has no clients of its own. Use one of: {_others()}."
        )
    groups, sizes = np.unique(dataset.groups, return_counts=True)
    enough = sizes >= min_samples
    groups, sizes = groups[enough], sizes[enough]
    wanted = len(groups) if num_clients is None else num_clients
    if not 1 <= wanted <= len(groups):
        raise ConfigError(
            f"partition 'natural': num_clients = {num_clients} with min_samples = {min_samples}, but data set "
            f"{dataset.name!r} has {len(groups)} clients of at least that size."
        )
    largest = np.argsort(-sizes, kind="stable")[:wanted]
    return tuple(np.flatnonzero(dataset.groups == group) for group in np.sort(groups[largest]))


def _others() -> str:
    return ", ".join(form for form in PARTITIONS if form != "natural")


def _fill_up(clients: list[Positions], labels: Positions, min_samples: int) -> None:
    """Give each client below `min_samples` what it lacks, from the largest class of the then largest client."""
    for receiver in range(len(clients)):
        while (lacking := min_samples - len(clients[receiver])) > 0:
            donor = int(np.argmax([len(client) for client in clients]))
            counts = np.bincount(labels[clients[donor]])
            largest = int(np.argmax(counts))
            # There are enough samples for all, so while anybody lacks some, the largest client has some to spare.
            moved = min(lacking, int(counts[largest]), len(clients[donor]) - min_samples)
            giving = np.flatnonzero(labels[clients[donor]] == largest)[:moved]
            clients[receiver] = np.concatenate([clients[receiver], clients[donor][giving]])
            clients[donor] = np.delete(clients[donor], giving)
