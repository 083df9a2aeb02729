"""The server: writes a line per round and the final model where the run's configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from comask.flower import ModelSpec, RoundReport, Strategy

from .task import ALGORITHM, NUM_CLIENTS, SEED, accuracy, load_federation, make_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    model, data = make_model(), load_federation().dataset
    output = Path(str(context.run_config["output"]))

    def write(report: RoundReport) -> None:
        with (output / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(report.to_json()) + "\n")

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with (output / "accuracy.jsonl").open("a") as file:
            file.write(json.dumps([number, found := accuracy(model, data)]) + "\n")
        return MetricRecord({"accuracy": found})

    strategy = Strategy(
        ALGORITHM,
        ModelSpec.of(model),
        seed=SEED,
        numbering="announced",
        min_nodes=NUM_CLIENTS - 1,
        evaluate_fraction=0.0,
        checkpoint=output / "server",
        on_report=write,
    )
    strategy.start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        timeout=float(context.run_config["timeout"]),
        evaluate_fn=evaluate,
    )
    np.savez(output / "model.npz", streams=strategy.state.model.streams)
