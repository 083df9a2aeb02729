"""The server side: any algorithm of comask as a Flower strategy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy

from comask.algorithms.base import Algorithm, ServerState
from comask.cohort import sample_cohort
from comask.errors import ConfigError, FleetError
from comask.flower.checkpoint import ServerCheckpoint, load, save
from comask.flower.coordinator import Coordinator
from comask.flower.evaluation import evaluation_messages, mean_metrics
from comask.flower.exchange import exchange
from comask.flower.report import RoundReport
from comask.flower.roster import Numbering, Roster, wait_for_nodes
from comask.flower.spec import ModelSpec
from comask.hyperparams import require_finite
from comask.seeding import derive_seed

DownlinkMode = Literal["changes", "full"]
_log = logging.getLogger("flwr")


class Strategy(strategy.Strategy):
    """A Flower strategy that runs a comask algorithm.

    Uploads are decoded, checked and added one at a time, in the order of the client numbers: the server needs memory for
    a few models and a handful of payloads, whatever the cohort. A reply that is late, failed, malformed or not finite is
    counted and survived. With the same seed, clients that train as `comask.simulate` does send the same bytes and get
    the same model.

    Args:
        algorithm: What to run, from `comask.algorithms.make_algorithm`; the clients must be given the same.
        spec: What is trained: `ModelSpec.of(model)`.
        seed: Root of every random choice, the cohorts' and the clients'; in [-2^63, 2^63).
        cohort_fraction: Fraction of the reachable clients that is asked in each round, in (0, 1].
        min_nodes: Nodes that must be reachable before a round begins.
        min_replies: Uploads that a round needs; with fewer, the model stays as it is, and no client is told that its
            upload was accepted.
        max_examples: The most samples that a client may claim; beyond, its upload is refused.
        downlink: `"changes"`: clients keep the model and are sent what has changed since, or all of it if that is
            shorter or they lost it. `"full"`: always all of it; clients keep no model.
        numbering: `"assigned"`: clients are numbered by the server. `"announced"`: by themselves (see `announce`).
        evaluate_fraction: Fraction of the reachable clients that is asked to evaluate after each round, in [0, 1].
        checkpoint: Folder for a checkpoint after every round. A strategy that finds one there continues from it.
        on_report: Called with the `RoundReport` of every round, once its checkpoint is written.

    Raises:
        ConfigError: If an argument is not allowed.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        spec: ModelSpec,
        *,
        seed: int = 0,
        cohort_fraction: float = 1.0,
        min_nodes: int = 1,
        min_replies: int = 1,
        max_examples: int = 1_000_000,
        downlink: DownlinkMode = "changes",
        numbering: Numbering = "assigned",
        evaluate_fraction: float = 1.0,
        checkpoint: Path | str | None = None,
        on_report: Callable[[RoundReport], None] | None = None,
    ) -> None:
        require_finite("Strategy", "cohort_fraction", cohort_fraction, low=0.0, high=1.0, open_low=True)
        require_finite("Strategy", "evaluate_fraction", evaluate_fraction, low=0.0, high=1.0)
        if downlink not in ("changes", "full"):
            raise ConfigError(f"Strategy(downlink=...) must be 'changes' or 'full', got {downlink!r}.")
        if numbering not in ("assigned", "announced"):
            raise ConfigError(
                f"Strategy(numbering=...) must be 'assigned' or 'announced', got {numbering!r}."
            )
        if not isinstance(min_nodes, int) or min_nodes < 1:
            raise ConfigError(f"Strategy(min_nodes=...) must be an integer of at least 1, got {min_nodes!r}.")
        self._coordinator = Coordinator(
            algorithm,
            spec.trained,
            seed=seed,
            patches=downlink == "changes",
            min_replies=min_replies,
            max_examples=max_examples,
        )
        self._algorithm, self._spec, self._seed, self._max_examples = algorithm, spec, seed, max_examples
        self._cohort_fraction, self._evaluate_fraction = cohort_fraction, evaluate_fraction
        self._min_nodes, self._patience = min_nodes, 3600.0
        self._folder = None if checkpoint is None else Path(checkpoint)
        self._on_report = on_report
        self._roster = Roster(numbering)
        self._initial: ArrayRecord | None = None

    @property
    def state(self) -> ServerState:
        """The server's state after the last completed round; there once `begin` has been called."""
        return self._coordinator.state

    def begin(self, initial_arrays: ArrayRecord) -> ServerState:
        """Take the initial model, or the checkpoint if there is one. `start` and `configure_train` call this.

        Args:
            initial_arrays: Such as `ArrayRecord(model.state_dict())`. Tensors that the specification does not name
                (a frozen backbone, counters) are handed through to the results unchanged.

        Returns:
            The state after the last completed round.

        Raises:
            ConfigError: If the arrays do not fit the specification.
            NonFiniteError: If they hold NaN or infinity.
            CheckpointError: If the checkpoint is damaged or of another run.
        """
        params, buffers = self._spec.split(initial_arrays)
        state = self._algorithm.server.init(params, buffers)
        found = None if self._folder is None else load(self._folder, self._identity)
        if found is None:
            self._coordinator.begin(state)
        else:
            state = found.state
            self._coordinator.begin(state, run=found.run, accepted=found.accepted)
            self._roster.clients = dict(found.clients)
            _log.info("comask: continuing after round %d from %s", state.round, self._folder)
        self._initial = initial_arrays
        return state

    def start(  # noqa: PLR0917 -- Flower's signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> strategy.Result:
        """Run rounds until `num_rounds` are complete, those before a restart included.

        Flower's own `start` counts from 1 whatever came before, and holds all replies of a round at once.

        Args:
            grid: Flower's grid.
            initial_arrays: The initial model; see `begin`.
            num_rounds: Rounds in all.
            timeout: Seconds that the clients of a round have, and that a round waits for `min_nodes`.
            train_config: Handed to the clients' train function, with `server-round` added.
            evaluate_config: Handed to the clients' evaluate function, with `server-round` added.
            evaluate_fn: Called with the round's number and the model, before the first round and after every one.

        Returns:
            Flower's result. Its arrays are the last model, even if no round succeeded.

        Raises:
            FleetError: If fewer than `min_nodes` nodes can be reached in time.
            CheckpointError: If the checkpoint is damaged, of another run, or cannot be written.
        """
        result = strategy.Result()
        train_config, evaluate_config = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        self._patience = timeout
        self.begin(initial_arrays)
        self.summary()
        result.arrays = self.arrays()
        if evaluate_fn and not self.state.round:
            _put(result.evaluate_metrics_serverapp, 0, evaluate_fn(0, result.arrays))
        for number in range(self.state.round + 1, num_rounds + 1):
            messages = self.configure_train(number, result.arrays, train_config, grid)
            replies = exchange(grid, messages, timeout=timeout).replies
            result.arrays, metrics = self.aggregate_train(number, replies)
            _put(result.train_metrics_clientapp, number, metrics)
            messages = self.configure_evaluate(number, result.arrays, evaluate_config, grid)
            replies = exchange(grid, messages, timeout=timeout).replies
            _put(result.evaluate_metrics_clientapp, number, self.aggregate_evaluate(number, replies))
            if evaluate_fn:
                _put(result.evaluate_metrics_serverapp, number, evaluate_fn(number, result.arrays))
        return result

    def arrays(self) -> ArrayRecord:
        """Return the model as named arrays, in the order of the initial ones."""
        assert self._initial is not None, "begin comes first"
        model = self.state.model
        return self._spec.merge(model.params, model.buffers, self._initial)

    def configure_train(
        self,
        server_round: int,  # noqa: ARG002 -- rounds are counted by the state, which survives a restart
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Sequence[Message]:
        """Draw the cohort of the next round and make its messages, in the order of the client numbers.

        Args:
            server_round: Not used: rounds are counted by the state, which survives a restart.
            arrays: The initial model, if `begin` was not called; not used otherwise.
            config: For the clients' train function, with `server-round` added.
            grid: Flower's grid.

        Raises:
            FleetError: If fewer than `min_nodes` nodes can be reached in time.
        """
        if self._initial is None:
            self.begin(arrays)
        number = self.state.round + 1
        online = wait_for_nodes(self._roster, grid, needed=self._min_nodes, timeout=self._patience)
        if len(online) < self._min_nodes:
            raise FleetError(
                f"Round {number} needs {self._min_nodes} nodes, and {len(online)} can be reached after {self._patience:g} s."
            )
        cohort = sample_cohort(online, self._cohort_fraction, seed=self._seed, round_number=number)
        return self._coordinator.ask({client: online[client] for client in cohort}, config)

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002 -- see configure_train
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Add the uploads to the model, one reply at a time, write the checkpoint and report.

        Args:
            server_round: Not used; see `configure_train`.
            replies: In any order; the same order gives the same bits.

        Returns:
            The model, and the means of what the clients measured beside `participants`, `uplink-bytes` and
            `downlink-bytes`.

        Raises:
            CheckpointError: If the checkpoint cannot be written.
        """
        coordinator = self._coordinator
        report = coordinator.take(replies)
        if self._folder is not None:
            save(
                self._folder,
                ServerCheckpoint(
                    coordinator.state,
                    coordinator.run,
                    coordinator.accepted,
                    self._roster.clients,
                    self._identity,
                ),
            )
        _log.info(
            "comask: round %d: %d of %d clients took part; %d payload bytes up, %d down",
            report.round,
            len(report.participants),
            len(report.cohort),
            report.uplink_bytes,
            report.downlink_bytes,
        )
        for refusal in report.refused:
            _log.warning(
                "comask: round %d: client %d: %s: %s",
                report.round,
                refusal.client,
                refusal.reason,
                refusal.message,
            )
        if self._on_report is not None:
            self._on_report(report)
        counts = {
            "participants": len(report.participants),
            "uplink-bytes": report.uplink_bytes,
            "downlink-bytes": report.downlink_bytes,
        }
        return self.arrays(), MetricRecord({**report.metrics, **counts})

    def configure_evaluate(
        self,
        server_round: int,  # noqa: ARG002 -- see configure_train
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Sequence[Message]:
        """Send the named arrays to the clients that are to evaluate, as Flower's own strategies do."""
        online = self._roster.online(grid)
        if not self._evaluate_fraction or not online:
            return []
        number = self.state.round
        chosen = sample_cohort(
            online, self._evaluate_fraction, seed=derive_seed(self._seed, "evaluate"), round_number=number
        )
        return evaluation_messages((online[client] for client in chosen), arrays, config, round_number=number)

    def aggregate_evaluate(
        self,
        server_round: int,  # noqa: ARG002 -- see configure_train
        replies: Iterable[Message],
    ) -> MetricRecord | None:
        """Return the means of the clients' metrics, weighted by samples; None if nobody measured anything."""
        return mean_metrics(replies, max_examples=self._max_examples)

    def summary(self) -> None:
        """Log what is run."""
        _log.info(
            "comask: %s on %d parameters and %d buffers, cohorts of %g of the nodes",
            self._algorithm.name,
            self._spec.trained.dim,
            self._spec.buffers.dim,
            self._cohort_fraction,
        )

    @property
    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run."""
        return {
            "algorithm": self._algorithm.name,
            "streams": self._algorithm.num_streams,
            "layout": self._spec.trained.fingerprint.hex(),
            "buffers": self._spec.buffers.fingerprint.hex(),
            "seed": self._seed,
        }


def _put(history: dict[int, MetricRecord], number: int, metrics: MetricRecord | None) -> None:
    if metrics is not None:
        history[number] = metrics
