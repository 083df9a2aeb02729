"""Evaluation by the clients, with Flower's stock messages: evaluate functions of existing apps need no change."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from comask.errors import RefusedUpdateError
from comask.flower.messages import ARRAYS, CONFIG, METRICS
from comask.flower.metrics import WeightedMetrics, num_examples


def evaluation_messages(
    nodes: Iterable[int], arrays: ArrayRecord, config: ConfigRecord, *, round_number: int
) -> list[Message]:
    """Make a message of the model's named arrays for each node; all share one content, which Flower stores once."""
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({**config, "server-round": round_number})})
    return [
        Message(content, dst_node_id=node, message_type=MessageType.EVALUATE, group_id=str(round_number))
        for node in nodes
    ]


def mean_metrics(replies: Iterable[Message], *, max_examples: int) -> MetricRecord | None:
    """Return the means of what the clients measured, weighted by samples; None if none measured anything.

    Replies that failed, or that claim a number of samples that is not allowed, are left out.
    """
    metrics = WeightedMetrics()
    for reply in replies:
        if not reply.has_content():
            continue
        try:
            weight = num_examples(reply.content, max_examples)
        except RefusedUpdateError:
            continue
        metrics.add(reply.content.metric_records[METRICS], weight)
    means = metrics.means()
    return MetricRecord(means) if means else None  # type: ignore[arg-type]  # dict is invariant
