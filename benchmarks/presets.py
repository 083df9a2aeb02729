"""Bits and errors of the presets on a real upload: the CNN on Fashion-MNIST, density 0.05, after some rounds.

python benchmarks/presets.py [--rounds 10]
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext
from comask.data import load_dataset, make_federation
from comask.flat import FlatModel
from comask.models import build_model
from comask.session import ClientRound
from comask.simulation import simulate
from comask.wire import CODECS, decode, encode

STEPS, BATCH, CLIENT = 30, 32, 0


def real_update(rounds):
    """Return one client's update of the round after `rounds`, with exact values, and the layout."""
    dataset = load_dataset("fashion-mnist-mini")
    federation = make_federation(dataset, "dirichlet:0.1", 20, seed=0)
    algorithm = make_algorithm("fedadam-ssm", density=0.05)
    model = partial(build_model, "cnn", dataset, seed=0)
    with simulate(
        algorithm, federation, model, rounds=rounds, seed=0, precision="float32", eval_every=0
    ) as run:
        list(run)
    flat = FlatModel(model())
    context = ClientContext(rounds + 1, CLIENT, 0, flat.layout, algorithm.uplink)
    client = ClientRound(algorithm, flat, algorithm.server.broadcast(run.state), {}, context)
    samples = np.random.default_rng(0).choice(federation.clients[CLIENT], (STEPS, BATCH))
    for batch in samples:
        images = (
            torch.from_numpy(dataset.train_inputs[batch])
            .float()
            .div(255)
            .sub(dataset.mean[0])
            .div(dataset.std[0])
        )
        client.optimizer.zero_grad()
        labels = torch.from_numpy(dataset.train_targets[batch]).long()
        functional.cross_entropy(flat.module(images), labels).backward()
        client.optimizer.step()
    return decode(client.finish().payload, dim=flat.dim, layout=flat.layout), flat.layout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    update, layout = real_update(parser.parse_args().rounds)
    exact = update.blocks[0].values
    print(f"k = {exact.shape[1]}; error: root mean square over root mean square; lost: decoded to zero")
    print(
        f"{'preset':18}{'bytes':>9}{'bits/entry':>12}"
        + "".join(f"{f'd{s} error':>12}{'lost':>8}" for s in "WMV")
    )
    for name in CODECS:
        payload = encode(update, name, layout=layout, seed=0)
        values = decode(payload, dim=layout.dim, layout=layout).blocks[0].values
        cells = ""
        for was, now in zip(exact, values, strict=True):
            error = np.linalg.norm(now - was) / np.linalg.norm(was)
            lost = ((now == 0) & (was != 0)).mean()
            cells += f"{error:12.4f}{100 * lost:7.1f}%"
        print(f"{name:18}{len(payload):9}{8 * len(payload) / exact.shape[1]:12.2f}{cells}")


if __name__ == "__main__":
    main()
