"""The delivery side over real sockets, in the test's own reactor: queues, sessions, records.

Everything but the spool and the resolver is the product's own. What is judged is kept as it is
said: the first verdict on each message, and the record that comes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred

from kumotwist.egress.settings import PathSettings, SourceSettings
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.settings import QueueSettings
from kumotwist.queue.targets import TargetWalk
from kumotwist.queue.verdicts import Verdict
from kumotwist.settings import declared
from kumotwist.wire.smtp.replies import Reply
from tests.queue_world import World

__all__ = ["DeliveryRoom", "Destination", "Observed"]


@attrs.define(frozen=True)
class Destination:
    """A domain, where its mail goes, and how.

    @ivar route: C{[127.0.0.1]:PORT}.
    @ivar source: keys of its C{[source:…]}.
    @ivar path: keys of its C{[path:…]}.
    @ivar queue: further keys of its C{[queue:…]}.
    """

    domain: str
    route: str
    source: Mapping[str, str]
    path: Mapping[str, str]
    queue: Mapping[str, str]


@attrs.define
class Observed:
    """What became of a message.

    @ivar verdict: the first word on it, by whomever; C{None} if it was delivered at once.
    @ivar reply: the last reply that its record quotes.
    @ivar records: the types of its records.
    """

    verdict: Verdict | None = None
    reply: str = ""
    records: list[str] = attrs.field(factory=list)
    attempts: int = 0
    decided: bool = False

    def __str__(self) -> str:
        """In the words of docs/failures.md."""
        words = ["delivered"] if self.records[-1:] == ["Delivery"] else []
        if self.verdict is not None and not words:
            words = [
                self.verdict.scope.value,
                "permanent" if self.verdict.permanent else "temporary",
                "charged" if self.verdict.charge else "free",
                self.verdict.blame,
            ]
            if self.verdict.possible_duplicate:
                words.append("duplicate")
        return " ".join([*words, "->", *self.records, str(self.attempts)])


class DeliveryRoom:
    """Queues, sources and sessions that deliver over real sockets."""

    def __init__(self, test: Any, destinations: list[Destination]) -> None:
        self.observed: dict[str, Observed] = {}
        self._first_words = _first_words_of_walks(test)
        self._world = World(
            network=global_reactor,
            sources={each.domain: _read(SourceSettings, each.source) for each in destinations},
            pools={each.domain: ((each.domain, 1),) for each in destinations},
            domain_queues={
                each.domain: {
                    "egress_pool": each.domain,
                    **_read(QueueSettings, {"route": each.route, **each.queue}),
                }
                for each in destinations
            },
            domain_paths={each.domain: _read(PathSettings, each.path) for each in destinations},
        )
        self._watch(test)

    def _watch(self, test: Any) -> None:
        """Keep what is said of messages, once it has been carried out."""
        fates = self._world.fates
        delivered, failed = fates.delivered, fates.failed

        def watched_delivery(message: QueuedMessage, reply: Reply, *facts: Any) -> None:
            delivered(message, reply, *facts)
            self._keep(message, None, reply)

        def watched_failure(message: QueuedMessage, verdict: Verdict, *facts: Any) -> None:
            failed(message, verdict, *facts)
            self._keep(message, verdict, verdict.reply)

        test.patch(fates, "delivered", watched_delivery)
        test.patch(fates, "failed", watched_failure)

    def _keep(self, message: QueuedMessage, verdict: Verdict | None, reply: Reply) -> None:
        observed = self.observed[message.id]
        observed.verdict = self._first_words.get(message.queue, verdict)
        observed.reply = str(reply)
        observed.attempts = message.attempts
        observed.decided = True

    def stop(self) -> Deferred[None]:
        """End every session."""
        return self._world.scheduler.stop(0.5)

    def inject(self, domain: str, body: bytes, recipients: int) -> list[str]:
        """Queue a message, with a sender to whom nothing is reported.

        @return: the ids, one for each recipient.
        """
        names = [f"r{number}@{domain}" for number in range(1, recipients + 1)]
        messages = self._world.enqueue(*names, sender="", body=body)
        for message in messages:
            self.observed[message.id] = Observed()
        return [message.id for message in messages]

    @property
    def decided(self) -> bool:
        """Whether every message has been judged."""
        return all(each.decided for each in self.observed.values())

    def fill_in_records(self) -> None:
        """Give each message the types of its records."""
        kinds = defaultdict(list)
        for record in self._world.records():
            kinds[record["id"]].append(record["type"])
        for message_id, observed in self.observed.items():
            observed.records = kinds[message_id]


def _first_words_of_walks(test: Any) -> dict[str, Verdict]:
    """By queue: what was said of the first host that could not be used; the site's verdict, which
    the message bears, is made of it."""
    first: dict[str, Verdict] = {}
    original = TargetWalk.failed

    def failed(walk: TargetWalk, verdict: Verdict) -> None:
        first.setdefault(walk._plan.domain, verdict)
        original(walk, verdict)

    test.patch(TargetWalk, "failed", failed)
    return first


def _read(settings: type, values: Mapping[str, str]) -> dict[str, Any]:
    """Values as a configuration would have them."""
    keys = declared(settings)
    return {key: keys[key][1].kind.parse(text) for key, text in values.items()}
