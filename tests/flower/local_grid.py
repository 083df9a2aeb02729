"""A Flower grid in one process: client apps run when a message is sent, behind the same serialisation as in a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid

Fault = Callable[[Message, Callable[[Message], Message]], Message | list[Message] | None]
"""Stands between a message and the app: gets the message and the app, returns what the grid receives (None: nothing)."""


def over_the_wire(message: Message) -> Message:
    """Return what arrives when a message is sent: everything that is not in the protobuf is gone."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


class LocalGrid(Grid):
    """Runs each client app when a message is pushed; keeps the reply until it is pulled.

    Args:
        app: Runs on every node.
        nodes: Node ids, and the configuration of each.
        run_config: The run's configuration, the same on every node.

    Attributes:
        faults: Consulted for every training message: `(node, round)` to a fault; round 0: all rounds.
        pushed: Every message that was sent, as the nodes saw it.
        replied: Every reply, as the server is given it.
        most_held: The largest number of replies handed out by one pull.
        offline: Nodes that cannot be reached.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Mapping[int, Mapping[str, object]],
        run_config: Mapping[str, object] | None = None,
    ) -> None:
        self._app = app
        self._contexts = {
            node: Context(1, node, dict(config), RecordDict(), dict(run_config or {}))
            for node, config in nodes.items()
        }
        self._replies: dict[str, list[Message]] = {}
        self.faults: dict[tuple[int, int], Fault] = {}
        self.pushed: list[Message] = []
        self.replied: list[Message] = []
        self.most_held = 0
        self.offline: set[int] = set()

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        return SimpleNamespace(run_id=1)

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self._contexts if node not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.pushed)}"
            ids.append(message.metadata.message_id)
            self.pushed.append(over_the_wire(message))
            replies = [over_the_wire(reply) for reply in self._run(over_the_wire(message))]
            self.replied += replies
            self._replies[ids[-1]] = replies
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [reply for key in message_ids for reply in self._replies.pop(key, [])]
        self.most_held = max(self.most_held, len(found))
        return found

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))

    def _run(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        number = int(message.metadata.group_id or 0)
        fault = self.faults.get((node, number)) or self.faults.get((node, 0))
        if message.metadata.message_type != "train":
            fault = None
        found = self._call(message) if fault is None else fault(message, self._call)
        return found if isinstance(found, list) else [] if found is None else [found]

    def _call(self, message: Message) -> Message:
        """Run the app as Flower does: what it raises becomes an error reply."""
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 -- as Flower does
            return Message(Error(2, f"{type(error)}:<{error!r}>"), reply_to=message)
