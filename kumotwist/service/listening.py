"""Server endpoints as services that fail when they are started, not later in a log."""

from __future__ import annotations

import os
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from kumotwist.service.errors import StartError
from kumotwist.settings.listening import let_bursts_wait, quiet_about_shortage, why_not_listening

__all__ = ["ListeningService", "address_words", "socket_address"]


def address_words(address: Any) -> str:
    """Where something listens, for people: C{ADDR:PORT}, or the path of a Unix socket."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return str(address) if name is None else os.fsdecode(name)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def socket_address(listening: IListeningPort | None) -> tuple[str, int] | None:
    """The IP address and the port of what listens; L{None} if it has none."""
    address: Any = None if listening is None else listening.getHost()
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return None if host is None or port is None else (str(host), int(port))


class ListeningService(Service):
    """Listens on one endpoint.

    @param what: what it is, for error texts: C{[listener:main] listen}.
    @param endpoint: a Twisted server endpoint string.
    """

    _log = Logger()

    def __init__(self, reactor: Any, what: str, endpoint: str, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._what = what
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None
        self._place: tuple[str, int] | None = None

    @property
    def address(self) -> str:
        """Where it listens, for people; the endpoint string while it does not."""
        if self._port is None:
            return self._endpoint
        return address_words(self._port.getHost())

    def hand_over(self) -> int:
        """Let other processes accept the connections.

        @return: the descriptor of the socket, which stays open here.
        @raise StartError: if it does not listen, or not on a socket.
        """
        port: Any = self._port
        if port is None or not hasattr(port, "stopReading"):
            raise StartError(f"{self._what}: workers cannot share {self._endpoint}")
        port.stopReading()
        descriptor: int = port.fileno()
        return descriptor

    @property
    def socket_address(self) -> tuple[str, int] | None:
        """The IP address and the port; L{None} while it does not listen on any."""
        return self._place

    def startService(self) -> None:
        """Listen.

        @raise StartError: if the address is taken or the like.
        """
        try:
            endpoint = serverFromString(self._reactor, self._endpoint)
        except Exception as error:
            raise StartError(f"{self._what}: {self._endpoint}: {error}") from None
        super().startService()  # type: ignore[no-untyped-call]
        failures: list[Failure] = []
        listening = maybeDeferred(endpoint.listen, self._factory)
        listening.addCallbacks(self._listens, failures.append)
        if failures:
            super().stopService()  # type: ignore[no-untyped-call]
            raise StartError(f"{self._what}: {why_not_listening(failures[0].value)}")
        if not listening.called:
            listening.addCallback(self._failed_late, failures)

    def _listens(self, port: IListeningPort) -> Deferred[None] | None:
        if self.running:
            self._port = port
            self._place = socket_address(port)
            let_bursts_wait(port, self._endpoint)
            quiet_about_shortage(self._what, port, self._reactor.seconds)
            return None
        # Stopped before it began, as can be with an endpoint that takes its time.
        stopping: Deferred[None] = maybeDeferred(cast("Any", port).stopListening)
        return stopping

    def _failed_late(self, _: Any, failures: list[Failure]) -> None:
        """An endpoint that took its time cannot end the start any more, but must be heard."""
        for failure in failures:
            self._log.critical(
                "{what} does not listen: {reason}",
                what=self._what,
                reason=failure.getErrorMessage(),
            )

    def stopService(self) -> Deferred[None]:
        """Accept no more connections; those that stand are the factory's."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        self._place = None
        if port is None:
            return succeed(None)
        stopping: Deferred[None] = maybeDeferred(cast("Any", port).stopListening)
        return stopping
