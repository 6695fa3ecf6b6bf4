"""A host by its name, over whatever way leads to its addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from zope.interface import implementer

from kumotwist.interfaces import IResolver
from kumotwist.settings.types import IPAddress

__all__ = ["NamedHostEndpoint"]

#: Addresses that are tried before the host counts as unreachable.
_MAX_TRIES = 4


@implementer(IStreamClientEndpoint)
class NamedHostEndpoint:
    """Looks a host up and connects to its addresses, one after another, until one answers.

    @param host: its name, in A-labels.
    @param way: gives the way to an address; L{None} if none may be taken to it.
    """

    def __init__(
        self,
        resolver: IResolver,
        host: str,
        way: Callable[[IPAddress], IStreamClientEndpoint | None],
    ) -> None:
        self._resolver = resolver
        self._host = host
        self._way = way

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Connect; cancelling it ends the look-up or the try that is under way."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> IProtocol:
        addresses = await self._resolver.lookup_addresses(self._host)
        ways = [way for way in map(self._way, addresses) if way is not None]
        failure: Exception = DNSLookupError(f"{self._host} has no address that may be used")
        for way in ways[:_MAX_TRIES]:
            try:
                protocol: IProtocol = await way.connect(factory)
            except CancelledError:
                raise
            except Exception as error:
                failure = error
            else:
                return protocol
        raise failure
