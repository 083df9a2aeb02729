"""Record the masks of real FedAdam-SSM training, for measuring index codings.

One file a model and density: the masks of the recorded clients in the last round, the values of the three streams there, and
what the receiver knew then (the server's two moments, and the weights' last aggregated update). Run it as

    python benchmarks/record_masks.py --out masks --model cnn --density 0.05 0.01 0.001

The clients hold Dirichlet(0.1) parts of the data (speakers for the character LSTM) and run 30 local Adam steps of 32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from comask.data.load import load_dataset
from comask.data.partition import make_federation
from comask.flat import FlatModel
from comask.kernels.select import top_k_abs_indices
from comask.models.registry import build_model
from comask.optim import LocalAdam

JOBS = {
    "cnn": ("fashion-mnist-mini", "dirichlet:0.1", 20),
    "vgg11": ("cifar10", "dirichlet:0.1", 20),
    "resnet18": ("svhn", "dirichlet:0.1", 20),
    "char_lstm": ("shakespeare", "natural", None),
}
STEPS, BATCH = 30, 32


def local_training(model, state, inputs, targets, dataset, rng):
    """Run the local steps from `state`, shape (3, d), and return the state after them."""
    model.load(state[0], model.buffers_array())
    optimiser = LocalAdam(model, first_moment=state[1], second_moment=state[2])
    for _ in range(STEPS):
        chosen = rng.choice(len(inputs), BATCH, replace=len(inputs) < BATCH)
        x, y = torch.from_numpy(inputs[chosen]), torch.from_numpy(targets[chosen]).long()
        optimiser.zero_grad()
        if dataset.task == "image":
            x = (x.float() / 255 - torch.tensor(dataset.mean).view(1, -1, 1, 1)) / torch.tensor(
                dataset.std
            ).view(1, -1, 1, 1)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.module(x.contiguous(memory_format=torch.channels_last))
        else:
            logits = model.module(x.long())
        F.cross_entropy(logits.float().flatten(0, -2), y.flatten()).backward()
        optimiser.step()
    return optimiser.streams()


def record(name, density, rounds, cohort, out):
    dataset_name, partition, num_clients = JOBS[name]
    dataset = load_dataset(dataset_name)
    federation = make_federation(dataset, partition, num_clients, seed=1, min_samples=16)
    model = FlatModel(build_model(name, dataset, seed=1))
    state = np.zeros((3, model.dim), np.float32)
    state[0] = model.params_array()
    k = round(density * model.dim)
    rng = np.random.default_rng(1)
    last_update = np.zeros(model.dim, np.float32)
    for round_ in range(1, rounds + 1):
        total = np.zeros((3, model.dim), np.float64)
        masks, values = [], []
        for client in rng.choice(federation.num_clients, cohort, replace=False):
            held = federation.clients[client]
            end = local_training(
                model, state, dataset.train_inputs[held], dataset.train_targets[held], dataset, rng
            )
            delta = end - state
            mask = top_k_abs_indices(delta[0], k)
            total[:, mask] += delta[:, mask] / cohort
            masks.append(mask)
            values.append(delta[:, mask])
        if round_ == rounds:
            path = Path(out) / f"{name}-{density}.npz"
            np.savez(
                path,
                masks=np.stack(masks),
                values=np.stack(values),
                first_moment=state[1],
                second_moment=state[2],
                last_update=last_update,
                names=np.array(model.layout.names),
                shapes=np.array([",".join(map(str, shape)) for shape in model.layout.shapes]),
            )
            print(f"{path}: {cohort} masks of {k} from {model.dim}, round {rounds}", flush=True)
        state += total.astype(np.float32)
        last_update = total[0].astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--density", nargs="+", type=float, default=[0.05, 0.01, 0.001])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cohort", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for name in args.model:
        for density in args.density:
            record(name, density, args.rounds, args.cohort, args.out)


if __name__ == "__main__":
    main()
