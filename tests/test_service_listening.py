"""Services that listen: they fail when they are started, and say of what they speak."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.service import listening
from kumotwist.service.errors import StartError
from kumotwist.service.listening import ListeningService, address_words
from kumotwist.settings.listening import why_not_listening


class FakePort:
    """A port that listens."""

    def __init__(self) -> None:
        self.stopped = False

    def getHost(self) -> Any:
        """Where."""
        return IPv4Address("TCP", "127.0.0.1", 2525)

    def stopListening(self) -> None:
        """No longer."""
        self.stopped = True


class SlowEndpoint:
    """An endpoint that listens when it is told to."""

    def __init__(self) -> None:
        self.answer: Deferred[Any] = Deferred()

    def listen(self, factory: Any) -> Deferred[Any]:
        """Later."""
        return self.answer


class OccupiedReactor(MemoryReactorClock):
    """A reactor on whose machine somebody else listens everywhere."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """No."""
        raise CannotListenError(interface, port, OSError(98, "Address already in use"))


class ListeningTests(SynchronousTestCase):
    """One endpoint as a service."""

    def service(
        self, endpoint: str = "tcp:2525:interface=127.0.0.1", reactor: Any = None
    ) -> ListeningService:
        """A service."""
        self.reactor = reactor or MemoryReactorClock()
        return ListeningService(self.reactor, "[listener:main] listen", endpoint, Factory())

    def test_listens(self) -> None:
        """It listens as soon as it is started, and no longer than it runs."""
        service = self.service()
        self.assertEqual(service.address, "tcp:2525:interface=127.0.0.1")
        service.startService()
        self.assertEqual([each[0] for each in self.reactor.tcpServers], [2525])
        self.assertRegex(service.address, r"^[\d.]+:2525$")
        self.successResultOf(service.stopService())
        self.assertFalse(service.running)
        self.successResultOf(service.stopService())

    def test_occupied(self) -> None:
        """An address that is in use stops the start, and is named with its section."""
        service = self.service(reactor=OccupiedReactor())
        failure = self.assertRaises(StartError, service.startService)
        self.assertEqual(
            str(failure),
            "[listener:main] listen: 127.0.0.1:2525 is in use by another process (stop that one or "
            "listen elsewhere; ss -ltnp 'sport = :2525' shows it)",
        )
        self.assertFalse(service.running)

    def test_words(self) -> None:
        """Each reason is told with what to do; what is not known is told as it is."""
        for number, host, port, words in (
            (errno.EADDRINUSE, "::1", 25, "[::1]:25 is in use"),
            (errno.EADDRINUSE, None, "/run/kumo.sock", "/run/kumo.sock is in use by another"),
            (errno.EADDRNOTAVAIL, "192.0.2.1", 25, "does not have the address of 192.0.2.1:25"),
            (errno.EACCES, "", 25, "no permission for 0.0.0.0:25 (ports below 1024"),
            (errno.EIO, "", 25, "[Errno 5]"),
        ):
            error = CannotListenError(host, port, OSError(number, os.strerror(number)))
            self.assertIn(words, why_not_listening(error))
        self.assertEqual(why_not_listening(ValueError("nonsense")), "nonsense")

    def test_no_such_endpoint(self) -> None:
        """So does an endpoint of a kind that nobody knows, or with odd arguments."""
        for endpoint in (
            "nonsense:1",
            "tcp:notaport",
            "tcp:1:no=such",
            "ssl:1:privateKey=/nowhere",
        ):
            failure = self.assertRaises(StartError, self.service(endpoint).startService)
            self.assertIn(f"[listener:main] listen: {endpoint}", str(failure))

    def slow(self) -> tuple[ListeningService, SlowEndpoint]:
        """A service whose endpoint takes its time."""
        endpoint = SlowEndpoint()
        from_string: Callable[[Any, str], SlowEndpoint] = lambda _reactor, _text: endpoint  # noqa: E731
        self.patch(listening, "serverFromString", from_string)
        service = self.service()
        service.startService()
        return service, endpoint

    def test_late(self) -> None:
        """An endpoint that takes its time listens in the end."""
        service, endpoint = self.slow()
        endpoint.answer.callback(FakePort())
        self.assertEqual(service.address, "127.0.0.1:2525")

    def test_late_failure(self) -> None:
        """One that fails late is told to the operator."""
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        _, endpoint = self.slow()
        endpoint.answer.errback(OSError(98, "Address already in use"))
        (event,) = (each for each in observer if each["log_level"].name == "critical")
        self.assertIn("Address already in use", event["reason"])

    def test_stopped_meanwhile(self) -> None:
        """A port that comes after the end is closed."""
        service, endpoint = self.slow()
        self.successResultOf(service.stopService())
        port = FakePort()
        endpoint.answer.callback(port)
        self.assertTrue(port.stopped)


class WordsTests(SynchronousTestCase):
    """Where something listens, for people."""

    def test_words(self) -> None:
        """As one would type it."""
        for address, words in (
            (IPv4Address("TCP", "0.0.0.0", 25), "0.0.0.0:25"),
            (IPv6Address("TCP", "::1", 25), "[::1]:25"),
            (UNIXAddress(b"/run/kumo.sock"), "/run/kumo.sock"),
            (UNIXAddress(None), "UNIXAddress(None)"),
        ):
            self.assertEqual(address_words(address), words)
