"""How many bodies stay in memory between their reception and their first attempt."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from kumotwist.interfaces import ISpool
from kumotwist.message.queued import QueuedMessage

__all__ = ["Bodies"]

#: Octets of message bodies that are kept in memory at most; the rest is read from the spool.
RESIDENT_BYTES = 64 * 1024 * 1024


class Bodies:
    """The bodies that are worth keeping in memory, within a bound.

    @param spool: where every body is.
    @param limit: octets to keep at most.
    """

    def __init__(self, spool: ISpool, limit: int = RESIDENT_BYTES) -> None:
        self._spool = spool
        self._limit = limit
        # By body: its octets, and the ids of the messages that it is kept for.
        self._resident: dict[int, tuple[int, set[str]]] = {}
        self.bytes = 0

    def keep(self, message: QueuedMessage) -> None:
        """Keep the body that the message carries, or drop it if there is no room.

        Messages that share a body share its room.
        """
        if message.body is None:
            return
        entry = self._resident.get(message.body_key)
        if entry is None:
            size = len(message.body)
            if self.bytes + size > self._limit:
                message.body = None
                return
            self.bytes += size
            entry = self._resident[message.body_key] = (size, set())
        entry[1].add(message.id)

    def drop(self, message: QueuedMessage) -> None:
        """Let the message's body go; the spool still has it.

        A body that was never kept (an attempt has loaded it for itself) takes no room from others.
        """
        message.body = None
        entry = self._resident.get(message.body_key)
        if entry is None:
            return
        size, sharers = entry
        sharers.discard(message.id)
        if not sharers:
            del self._resident[message.body_key]
            self.bytes -= size

    def load(self, message: QueuedMessage) -> Deferred[bytes]:
        """The message's body, from memory or from the spool; see L{ISpool}."""
        if message.body is not None:
            return succeed(message.body)
        loading: Deferred[bytes] = self._spool.load(message)
        return loading
