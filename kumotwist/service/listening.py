"""Server endpoints as services that fail when they are started, not later in a log."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from kumotwist.service.errors import StartError

__all__ = ["ListeningService", "address_words"]


def address_words(address: Any) -> str:
    """Where something listens, for people: C{ADDR:PORT}, or the path of a Unix socket."""
    host = getattr(address, "host", None)
    if host is None:
        return str(getattr(address, "name", address))
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


class ListeningService(Service):
    """Listens on one endpoint.

    @param what: what it is, for error texts: C{[listener:main] listen}.
    @param endpoint: a Twisted server endpoint string.
    """

    def __init__(self, reactor: Any, what: str, endpoint: str, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._what = what
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None

    @property
    def address(self) -> str:
        """Where it listens, for people; the endpoint string while it does not."""
        if self._port is None:
            return self._endpoint
        return address_words(self._port.getHost())

    def startService(self) -> None:
        """Listen.

        @raise StartError: if the address is taken or the like.
        """
        failures: list[Failure] = []
        try:
            endpoint = serverFromString(self._reactor, self._endpoint)
        except Exception as error:
            raise StartError(f"{self._what}: {self._endpoint}: {error}") from None
        listening = maybeDeferred(endpoint.listen, self._factory)
        listening.addCallbacks(self._listens, failures.append)
        if failures:
            raise StartError(f"{self._what}: {failures[0].getErrorMessage()}")
        super().startService()  # type: ignore[no-untyped-call]

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Accept no more connections; those that stand are the factory's."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        stopping: Deferred[None] = maybeDeferred(cast("Any", port).stopListening)
        return stopping
