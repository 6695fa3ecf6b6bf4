"""Proxies that run alone: told to hurry, and to read their rules again."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher

from kumotwist.config import load
from kumotwist.service.standalone import standalone_proxies
from tests.config_case import ConfigCase
from tests.proxy_case import CONNECT, GREETING, ObedientTransport, refusal

FILE = "[proxy:main]\nlisten = 127.0.0.1:5000\n[proxy-rule:all]\naction = {action}\n{more}"


class StandaloneProxiesTests(ConfigCase):
    """C{twistd kumoproxy} once it runs."""

    def setUp(self) -> None:
        """Start a proxy that refuses everything."""
        super().setUp()
        self.log = EventLoggingObserver()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.reactor = MemoryReactorClock()
        self.path = self.write(FILE.format(action="deny", more=""))
        configuration = load(self.path)
        self.service = standalone_proxies(
            self.reactor,
            configuration.proxies,
            configuration.proxy_rules,
            None,
            configuration,
        )
        self.service.startService()

    def client(self) -> ObedientTransport:
        """A client that has asked for a connection."""
        transport = ObedientTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 5))
        factory: Any = self.reactor.tcpServers[0][1]
        transport.protocol = factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        transport.protocol.dataReceived(GREETING)
        return transport

    def refused(self) -> bool:
        """Whether a request is refused by a rule."""
        client = self.client()
        client.taken()
        client.protocol.dataReceived(CONNECT)
        answer = client.taken()
        client.protocol.connectionLost()
        self.reactor.advance(1)  # sessions that end together share a line of the log
        return answer == refusal(2)

    def logged(self) -> str:
        """What the log says, a line each."""
        events = [event for event in self.log if event.get("log_format")]
        return "\n".join(event["log_format"].format(**event) for event in events)

    def test_rules_are_read_again(self) -> None:
        """The next request goes by the rules that the file has now."""
        self.assertTrue(self.refused())
        self.write(FILE.format(action="allow", more="ports = 1\n[proxy-rule:no]\naction = deny\n"))
        self.service.reload()
        self.assertIn("the rules were read again", self.logged())
        self.assertTrue(self.refused())
        self.assertIn("[proxy-rule:no]", self.logged())

    def test_mistakes(self) -> None:
        """A file with a mistake is refused whole, with its line."""
        self.write(FILE.format(action="nonsense", more=""))
        self.service.reload()
        self.assertIn(":4: [proxy-rule:all] action", self.logged())
        self.assertIn("stays as it was", self.logged())
        self.assertTrue(self.refused())

    def test_restart(self) -> None:
        """What has to wait for a restart is named; sections of others are not."""
        more = "[proxy:other]\nlisten = 127.0.0.1:5001\n[http]\n[listener:x]\nlisten = :2525\n"
        self.write(FILE.format(action="deny", more=more))
        self.service.reload()
        self.assertRegex(self.logged(), r"not before a restart: \[http\], \[proxy:other\]$")

    def test_truncated(self) -> None:
        """A file that is empty, or lacks a proxy that runs, changes nothing."""
        for text, words in (
            (
                "",
                r"nothing was changed: .*kumo\.ini looks truncated \(it has no section\); restart",
            ),
            (
                "[proxy:other]\nlisten = :1\n",
                r"looks truncated \(\[proxy:main\] missing\); restart if",
            ),
        ):
            self.write(text)
            self.service.reload()
            self.assertRegex(self.logged(), words)
        self.assertNotIn("read again", self.logged())
        self.write(FILE.format(action="allow", more=""))
        self.service.reload()
        self.assertIn("the rules were read again", self.logged())

    def test_without_a_file(self) -> None:
        """What came from the command line cannot be read again."""
        service = standalone_proxies(self.reactor, {}, {}, None)
        service.reload()
        self.assertIn("no configuration file", self.logged())

    def test_hurry(self) -> None:
        """Told to stop once more, it does not wait for its sessions."""
        client = self.client()
        stopping = self.service.stopService()
        self.assertNoResult(stopping)
        self.service.hurry()
        self.assertTrue(client.aborted)
        client.lose()
        self.successResultOf(stopping)
