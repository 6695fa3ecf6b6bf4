"""The ways that a source has: each of its proxies with each of its addresses."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from kumotwist.egress.source import Source
from kumotwist.settings.types import IPAddress

__all__ = ["Way"]


@attrs.define(frozen=True)
class Way:
    """One way out of a source; a check looks at each by itself, so that no other steps in for it.

    @ivar source: the source, with one proxy at most.
    @ivar address: the address that destinations shall see; L{None} where nothing chooses it.
    """

    source: Source
    address: IPAddress | None = None

    @classmethod
    def all_of(cls, source: Source) -> list[Way]:
        """Every way of a source, in the order of the configuration."""
        return [
            cls(one, address)
            for one in source.one_by_one()
            for address in one.egress_addresses or (None,)
        ]

    def pick(self, addresses: Iterable[IPAddress]) -> IPAddress | None:
        """The first of a host's addresses that this way leads to; L{None} if it leads to none."""
        for address in addresses:
            if self.address is None or address.version == self.address.version:
                return address
        return None
