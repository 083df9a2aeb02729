"""Runs the tests' fleet under Flower's simulation engine: `python simulated_fleet.py FOLDER`. Leaves FOLDER/model.npz."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from fleet import FEEDBACK, initial_arrays, make_app, make_strategy
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

ROUNDS = 3


def main(folder: Path) -> None:
    """Simulate, and save the model."""
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = make_strategy(FEEDBACK, min_nodes=5)
        strategy.start(grid, initial_arrays(), num_rounds=ROUNDS, timeout=120.0)
        model = strategy.state.model
        np.savez(folder / "model.npz", streams=model.streams, buffers=model.buffers)

    run_simulation(
        server_app=server,
        client_app=make_app(FEEDBACK, folder / "clients"),
        num_supernodes=5,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 2}},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
