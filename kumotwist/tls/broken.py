"""Sites whose TLS does not work, remembered for a while (KumoMTA's C{remember_broken_tls})."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["BrokenTLS"]

#: More sites are not remembered; the one that was seen longest ago goes.
_MAX_SITES = 10_000


class BrokenTLS:
    """Sites with which a handshake has failed.

    @param seconds: tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until: OrderedDict[str, float] = OrderedDict()

    def remember(self, site: str, duration: float) -> None:
        """A handshake has failed.

        @param duration: how long that is remembered, in seconds.
        """
        self._until[site] = self._seconds() + duration
        self._until.move_to_end(site)
        if len(self._until) > _MAX_SITES:
            self._until.popitem(last=False)

    def remembers(self, site: str) -> bool:
        """Whether TLS of a site is known to be broken."""
        until = self._until.get(site)
        if until is not None and until <= self._seconds():
            del self._until[site]
            return False
        return until is not None
