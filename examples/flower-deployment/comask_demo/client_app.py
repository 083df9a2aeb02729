"""The clients: honest ones, and two that a node's configuration turns bad in a given round."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from comask.flower import announce, open_round

from .task import ALGORITHM, load_federation, make_model
from .task import train as train_locally

app = announce(ClientApp())


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train on this node's images."""
    model, federation = make_model(), load_federation()
    opened = open_round(msg, context, model, ALGORITHM)
    if context.node_config.get("hang-in-round") == opened.number:
        Path(str(context.node_config["marker"])).touch()
        time.sleep(600)  # until somebody pulls the plug
    loss = train_locally(model, opened.optimizer, federation, opened.client, opened.stream_seed)
    reply = opened.reply(len(federation.clients[opened.client]), {"train-loss": loss})
    if context.node_config.get("garbage-in-round") == opened.number:
        garbage = np.random.default_rng(0).bytes(4096)
        reply.content["comask.payload"] = ArrayRecord(
            {"data": Array("uint8", (len(garbage),), "comask.update.v1", garbage)}
        )
    return reply
