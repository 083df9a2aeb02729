"""The clients. What makes this a client of comask are the lines with `open_round`, `optimizer` and `reply`."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from comask.flower import ModelSpec, announce, open_round

from .faults import Faults
from .task import ALGORITHM, load_federation, make_model
from .task import train as train_locally

app = announce(ClientApp())


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train on this node's images."""
    model, federation = make_model(), load_federation()
    opened = open_round(msg, context, model, ALGORITHM)
    faults = Faults(context, opened.client, opened.number)
    faults.hold_back()
    loss = train_locally(model, opened.optimizer, federation, opened.client, opened.stream_seed)
    reply = opened.reply(len(federation.clients[opened.client]), {"train-loss": loss})
    return faults.spoil(reply, ModelSpec.of(model).trained)
