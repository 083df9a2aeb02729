"""The server: the strategy differs from a stock app's."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from comask.flower import ModelSpec, Strategy

from .task import ALGORITHM, Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, and save the model if the run's configuration says where."""
    global_model = Net()
    arrays = ArrayRecord(global_model.state_dict())

    strategy = Strategy(  # was: FedAvg(fraction_evaluate=...)
        ALGORITHM,
        ModelSpec.of(global_model),
        min_nodes=2,
        evaluate_fraction=context.run_config["fraction-evaluate"],
        on_report=print,
    )

    result = strategy.start(
        grid=grid, initial_arrays=arrays, num_rounds=context.run_config["num-server-rounds"]
    )
    if context.run_config["save-to"]:
        torch.save(result.arrays.to_torch_state_dict(), context.run_config["save-to"])
