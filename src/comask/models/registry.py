"""The models by name, and how one is built for a data set from a seed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from comask.data.dataset import Dataset, Task
from comask.errors import ConfigError, MissingExtraError, UnknownNameError
from comask.seeding import derive_seed

if TYPE_CHECKING:
    from torch import nn

# Model: the class in the file of the same name, and the task it is for.
_CLASSES: Mapping[str, tuple[str, Task]] = {
    "cnn": ("Cnn", "image"),
    "vgg11": ("Vgg11", "image"),
    "resnet18": ("ResNet18", "image"),
    "logistic": ("Logistic", "image"),
    "mlp": ("Mlp", "image"),
    "char_lstm": ("CharLstm", "text"),
}


def _construct(name: str, **arguments: Any) -> nn.Module:
    try:
        module = importlib.import_module(f"comask.models.{name}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "train") from error
    model: nn.Module = getattr(module, _CLASSES[name][0])(**arguments)
    return model


MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {name: partial(_construct, name) for name in _CLASSES}
)
"""Model factories by name. Each takes `input_shape` (one sample's), `num_classes` and the model's own options, and
initialises from torch's global generator; torch is imported by the first call."""


def default_model(dataset: Dataset) -> str:
    """Return the name of the model that a run takes when none is chosen."""
    return "cnn" if dataset.task == "image" else "char_lstm"


def model_task(name: str) -> Task:
    """Return the task that a model is for.

    Raises:
        UnknownNameError: If there is no such model.
    """
    if name not in _CLASSES:
        raise UnknownNameError("model", name, _CLASSES)
    return _CLASSES[name][1]


def build_model(name: str, dataset: Dataset, *, seed: int, **options: Any) -> nn.Module:
    """Build a model for a data set; the same seed gives the same weights.

    The weights are PyTorch's default initialisation, or the one the model's file states, drawn on the CPU from a stream
    of its own: the global generators are left as they were.

    Args:
        name: One of `MODELS`.
        dataset: Its task, sample shape and number of classes decide the model's input and output.
        seed: The run's seed.
        **options: The model's own options, such as `batch_norm` of `vgg11`.

    Returns:
        A float32 model on the CPU, in training mode. It maps normalised images `(n, channels, height, width)` to logits
        `(n, classes)`, or symbols `(n, length)` to logits `(n, length, classes)`.

    Raises:
        UnknownNameError: If there is no such model.
        ConfigError: If the model is for another task.
        MissingExtraError: If torch is not installed.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    task = _CLASSES[name][1]
    if task != dataset.task:
        fitting = ", ".join(other for other, (_, its_task) in _CLASSES.items() if its_task == dataset.task)
        raise ConfigError(
            f"model {name!r} is for {task} data and {dataset.name!r} is {dataset.task} data; use one of: {fitting}."
        )
    try:
        import torch  # noqa: PLC0415  # listing the models must not take the seconds that this import takes
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train") from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "model", name))
        return MODELS[name](
            input_shape=dataset.train_inputs.shape[1:], num_classes=dataset.num_classes, **options
        )
