"""A simulation that trains nothing: it keeps a simulation's promises about rounds, checkpoints and resuming."""

import json
import warnings
from types import SimpleNamespace

import numpy as np

from comask.seeding import derive_rng
from comask.simulation.records import RoundRecord

with warnings.catch_warnings():
    # Some versions of typer import what newer versions of click deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from comask.experiments.app import app
    from comask.experiments.cli import main

__all__ = ["PARAMETERS", "FakeSimulation", "app", "call", "install", "make_record"]

PARAMETERS = 1000


def make_record(
    round_number, *, accuracy=0.5, mask=10, values=100, overhead=2, downlink=50, paper_bits=1000, wall=0.5
):
    """Return a plausible record, four clients, whose parts add up."""
    return RoundRecord(
        round=round_number,
        cohort=(0, 1, 2, 3),
        participants=(0, 1, 3),
        dropped=(2,),
        refused=(),
        uplink_bytes=mask + values + overhead,
        downlink_bytes=downlink,
        paper_bits=paper_bits,
        mask_bytes=mask,
        value_bytes=values,
        buffer_bytes=0,
        overhead_bytes=overhead,
        train_loss=1.0,
        test_loss=1.0,
        test_accuracy=accuracy,
        seconds={"wall": wall},
    )


class FakeSimulation:
    """Each record is a function of algorithm, seed and round; the checkpoint holds the last of them."""

    def __init__(
        self,
        algorithm,
        *,
        rounds,
        seed,
        checkpoint,
        precision,
        device,
        workers,
        interrupt_at,
    ):
        self.rounds, self.seed, self.algorithm, self.file = (
            rounds,
            seed,
            algorithm.name,
            checkpoint / "manifest.json",
        )
        self.interrupt_at = interrupt_at
        self.last_record = None
        if self.file.exists():
            self.last_record = RoundRecord.from_json(json.loads(self.file.read_text()))
        self.start_round = self.last_record.round + 1 if self.last_record else 1
        self.next_round = self.start_round
        self.device = "cpu" if device == "auto" else device
        self.precision = "float32" if precision == "auto" else precision
        self.precision_reason = "measured" if precision == "auto" else "as asked"
        self.workers = workers or 0
        self.state = SimpleNamespace(model=SimpleNamespace(dim=PARAMETERS))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return self

    def __next__(self):
        if self.next_round > self.rounds:
            raise StopIteration
        if self.next_round == self.interrupt_at:
            raise KeyboardInterrupt
        noise = derive_rng(self.seed, self.algorithm, self.next_round).random()
        accuracy = 0.9 * (1 - np.exp(-self.next_round / 4)) + 0.01 * noise
        record = make_record(self.next_round, accuracy=float(accuracy), values=100 + int(10 * noise))
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps(record.to_json()))
        self.last_record = record
        self.next_round += 1
        return record


def install(monkeypatch, *, interrupt_at=None):
    """Put the fake in the simulator's place; return the list of simulations that are opened."""
    opened = []

    def simulate(algorithm, federation, model, *, rounds, seed, checkpoint, precision, device, workers, **_):
        opened.append(
            FakeSimulation(
                algorithm,
                rounds=rounds,
                seed=seed,
                checkpoint=checkpoint,
                precision=precision,
                device=device,
                workers=workers,
                interrupt_at=interrupt_at,
            )
        )
        return opened[-1]

    monkeypatch.setattr("comask.simulation.simulate", simulate)
    return opened


def call(capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and standard error."""
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, out, err
