"""Taking turns: first among tenants, then among the queues of a tenant.

Whoever has a million messages has one turn out of two beside somebody who has one message; how
that plays together with the rest is explained in C{docs/scheduling.md}. Every step costs the same
whatever the number of tenants, queues and messages is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

from kumotwist.message.queued import QueuedMessage

__all__ = ["FairLine", "FairQueue", "tenant_of"]


def tenant_of(queue: str) -> str:
    """Whose a queue is: C{campaign:tenant@domain!routing_domain}; empty for nobody's."""
    prefix = queue.rpartition("@")[0]
    return prefix.partition(":")[2] if ":" in prefix else prefix


class FairLine:
    """Queues that wait for the same thing, by their names."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def __iter__(self) -> Iterator[str]:
        for names in self._tenants.values():
            yield from names

    def add(self, name: str) -> None:
        """Stand in line; whoever stands there already keeps its place."""
        self._tenants.setdefault(tenant_of(name), OrderedDict()).setdefault(name)

    def first(self) -> str:
        """Whose turn it is."""
        return next(iter(next(iter(self._tenants.values()))))

    def rotate(self) -> None:
        """The first one has had its turn, and so has its tenant."""
        tenant, names = next(iter(self._tenants.items()))
        names.move_to_end(next(iter(names)))
        self._tenants.move_to_end(tenant)

    def remove(self, name: str) -> None:
        """Leave; the tenant's others come after those of the other tenants."""
        tenant = tenant_of(name)
        names = self._tenants.get(tenant)
        if names is None or name not in names:
            return
        had_turn = next(iter(names)) == name
        del names[name]
        if not names:
            del self._tenants[tenant]
        elif had_turn:
            self._tenants.move_to_end(tenant)


class FairQueue:
    """Messages of many queues, of which each gets its turn; those of one queue keep their order.

    @ivar length: how many there are.
    """

    def __init__(self) -> None:
        self._ahead: deque[QueuedMessage] = deque()
        self._line = FairLine()
        self._queues: dict[str, deque[QueuedMessage]] = {}
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[QueuedMessage]:
        yield from self._ahead
        for messages in self._queues.values():
            yield from messages

    def add(self, messages: Iterable[QueuedMessage]) -> None:
        """Take messages, each behind those of its queue."""
        for message in messages:
            waiting = self._queues.get(message.queue)
            if waiting is None:
                waiting = self._queues[message.queue] = deque()
                self._line.add(message.queue)
            waiting.append(message)
            self.length += 1

    def put_back(self, messages: list[QueuedMessage]) -> None:
        """Take messages back that had their turn: they come first of all."""
        self._ahead.extendleft(reversed(messages))
        self.length += len(messages)

    def take(self, most: int) -> list[QueuedMessage]:
        """The message whose turn it is, with those behind it that share its body and sender.

        @param most: messages, at least 1.
        @return: empty if there are none.
        """
        if self._ahead:
            return self._take_from(self._ahead, most)
        if not self._queues:
            return []
        alone = len(self._queues) == 1  # then nobody takes turns with it
        name = next(iter(self._queues)) if alone else self._line.first()
        waiting = self._queues[name]
        batch = self._take_from(waiting, most)
        if not waiting:
            del self._queues[name]
            self._line.remove(name)
        elif not alone:
            self._line.rotate()
        return batch

    def _take_from(self, waiting: deque[QueuedMessage], most: int) -> list[QueuedMessage]:
        first = waiting.popleft()
        batch = [first]
        while (
            waiting
            and first.body_key
            and waiting[0].body_key == first.body_key
            and waiting[0].sender == first.sender
            and len(batch) < most
        ):
            batch.append(waiting.popleft())
        self.length -= len(batch)
        return batch

    def pop(self) -> QueuedMessage:
        """The message whose turn it is, alone."""
        (message,) = self.take(1)
        return message

    def extract(self, wanted: Callable[[QueuedMessage], bool]) -> list[QueuedMessage]:
        """Take some messages out; looks at every message."""
        taken = [message for message in self if wanted(message)]
        if taken:
            gone = set(map(id, taken))
            ahead = [message for message in self._ahead if id(message) not in gone]
            rest = [
                message
                for waiting in self._queues.values()
                for message in waiting
                if id(message) not in gone
            ]
            self.clear()
            self.put_back(ahead)
            self.add(rest)
        return taken

    def clear(self) -> list[QueuedMessage]:
        """Give everything away."""
        everything = list(self)
        self.__init__()  # type: ignore[misc]
        return everything
