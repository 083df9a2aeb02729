"""Bits and errors of the presets on a real upload: the CNN on Fashion-MNIST, density 0.05, after some rounds.

python benchmarks/presets.py [--rounds 10]
python benchmarks/presets.py --recorded masks      sizes of the uploads that record_masks.py recorded
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from comask.wire import CODECS, Block, ParamLayout, Update, decode, encode, inspect

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


def bits_of(update, layout, name):
    """Return bits a kept entry: of the payload, of its mask, of its values, and of the payload with values at a fixed width."""
    payload = encode(update, name, layout=layout, seed=0)
    info, kept = inspect(payload), update.blocks[0].num_kept
    fixed = len(encode(update, replace(CODECS[name], entropy=False), layout=layout, seed=0))
    return [8 * n / kept for n in (len(payload), info.mask_bytes, info.value_bytes, fixed)]


def print_recorded(folder):
    """Print the bits a kept entry of uploads that record_masks.py recorded, means over the clients."""
    names = ("exact", "half", "compact", "extreme")
    print(f"{'bits a kept entry':22}" + "".join(f"{name:>10}{'fixed':>8}" for name in names))
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            shapes = tuple(tuple(int(n) for n in shape.split(",") if n) for shape in file["shapes"])
            layout = ParamLayout(tuple(file["names"].tolist()), shapes)
            updates = [
                Update(layout.dim, (Block(mask, values),))
                for mask, values in zip(file["masks"], file["values"], strict=True)
            ]
        means = [np.mean([bits_of(update, layout, name) for update in updates], axis=0) for name in names]
        print(f"{path.stem:22}" + "".join(f"{mean[0]:10.2f}{mean[3]:8.2f}" for mean in means))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--recorded", help="a folder that record_masks.py wrote: sizes of these uploads instead"
    )
    args = parser.parse_args()
    if args.recorded:
        print_recorded(args.recorded)
        return
    update, layout = real_update(args.rounds)
    exact = update.blocks[0].values
    print(f"k = {exact.shape[1]}; error: root mean square over root mean square; lost: decoded to zero")
    print(
        f"{'preset':18}{'bytes':>9}{'bits/entry':>12}{'mask':>8}{'values':>8}{'fixed width':>13}"
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
        print(
            f"{name:18}{len(payload):9}"
            + "".join(map("{:{}.2f}".format, bits_of(update, layout, name), (12, 8, 8, 13)))
            + cells
        )


if __name__ == "__main__":
    main()
