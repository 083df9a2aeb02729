"""The character LSTM of federated learning on Shakespeare.

Two layers of 256 units over embeddings of 8, as in the Shakespeare task of LEAF (S. Caldas et al., arXiv:1812.01097) and in
B. McMahan et al., AISTATS 2017. LEAF predicts only the character after a sequence; here each place predicts the next.
"""

from __future__ import annotations

import torch
from torch import nn


class CharLstm(nn.Module):
    """Embedding, two LSTM layers, one linear layer; 815,945 parameters for 65 symbols.

    Args:
        input_shape: `(length,)`; any length will do.
        num_classes: Number of symbols, of the input as of the output.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:  # noqa: ARG002  # all models take both
        super().__init__()
        self.embedding = nn.Embedding(num_classes, 8)
        self.lstm = nn.LSTM(8, 256, num_layers=2, batch_first=True)
        self.output = nn.Linear(256, num_classes)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """Map symbols `(n, length)` of an integer type to logits `(n, length, num_classes)`."""
        states, _ = self.lstm(self.embedding(symbols))  # (n, length, 256)
        logits: torch.Tensor = self.output(states)
        return logits
