"""What came of the messages: which arrived, how often, and whether each copy has an excuse."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from itertools import pairwise

import attrs

from tests.integration.sink import Sink
from tests.torture.injection import content

__all__ = ["Tally"]

#: A copy is excused if the one before arrived no longer before a kill than this; seconds. What
#: counts is the time from the sink's reply to the commit of the removal, on a busy machine.
IN_FLIGHT = 3.0


@attrs.define
class Tally:
    """Counts what a sink got.

    @ivar arrivals: when each number arrived.
    @ivar breaks: when something was killed or broken.
    @ivar mangled: numbers that arrived other than they were sent.
    """

    arrivals: dict[int, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    breaks: list[float] = attrs.field(factory=list)
    mangled: list[int] = attrs.field(factory=list)

    def broken(self) -> None:
        """Something is being killed now."""
        self.breaks.append(time.monotonic())

    def collect(self, sink: Sink) -> None:
        """Count what the sink has, and empty it."""
        mails, sink.mails = sink.mails, []
        sink.sessions = [session for session in sink.sessions if not session.closed]
        now = time.monotonic()
        for mail in mails:
            for recipient in mail.recipients:
                found = re.fullmatch(r"m(\d+)@example\.com", recipient)
                if found is None:
                    continue
                number = int(found.group(1))
                self.arrivals[number].append(now)
                if not mail.body.endswith(content(number)):
                    self.mangled.append(number)

    def lost(self, accepted: set[int]) -> list[int]:
        """The accepted numbers that have not arrived."""
        return sorted(accepted - set(self.arrivals))

    @property
    def copies(self) -> int:
        """How many arrivals were not the first."""
        return sum(len(times) - 1 for times in self.arrivals.values())

    def unexcused(self) -> list[int]:
        """The numbers of which a copy arrived although nothing was killed near the one before."""
        return [
            number
            for number, times in self.arrivals.items()
            for before, after in pairwise(times)
            if not any(
                before - 1 <= moment <= min(before + IN_FLIGHT, after) for moment in self.breaks
            )
        ]
