"""Models in plain PyTorch, one file each. Importing this package does not import torch; building a model does."""

from comask.models.registry import MODELS, build_model, default_model, model_task

__all__ = ["MODELS", "build_model", "default_model", "model_task"]
