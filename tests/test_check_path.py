"""What a check finds out about the way out of a source, step by step."""

from __future__ import annotations

import ipaddress

from twisted.internet.error import ConnectBindError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from kumotwist.check import Status, table
from kumotwist.check.probe import bind_here
from kumotwist.testing.scripted import Close, Expect, Send, Step
from tests.check_case import BIND, CONNECT, GREETING, CheckCase, Script, make_source, reply, smtp

NO_LOGIN = "the proxy asks for none: alice and the password are not used"
OK, SKIPPED, WARNING, FAILURE = Status.OK, Status.SKIPPED, Status.WARNING, Status.FAILURE
NOT_TRIED = "not tried: the way out ends before this"
PROXY = ("10.0.5.10", 5000)
MX = "192.0.2.25"


#: To leave from 2001:db8::1.
BIND6 = b"\x05\x02\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x00"


class InTurn(Factory):
    """A host that follows another script in each connection."""

    noisy = False

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """The next one."""
        return self.scripts.pop(0).buildProtocol(addr)


def dialogue(*steps: Step) -> tuple[Step, ...]:
    """A proxy that is greeted, and then asked to bind."""
    return (Expect(GREETING), Send(b"\x05\x00"), Expect(BIND), *steps)


def through(*steps: Step) -> tuple[Step, ...]:
    """A proxy that does everything, and what the destination does."""
    return (*dialogue(Send(reply())), Expect(CONNECT), Send(reply(port=40001)), *steps)


class DirectTests(CheckCase):
    """A source with an address of this machine."""

    source = make_source(source_address="192.0.2.1")

    def test_all_right(self) -> None:
        """The address is there, the host greets, an echo peer sees the address; nothing is sent
        but EHLO and QUIT."""
        script = self.put(MX, 25, *smtp("mx.example greets [192.0.2.1]"))
        report = self.check(self.source, mx=MX, echo=f"{MX}:25")
        self.assert_found(report, "bind", OK, "192.0.2.1 is an address of this machine")
        self.assert_found(report, "mx", OK, f"{MX}:25 greets: 220 mx.example ESMTP, 0 ms")
        self.assert_found(report, "echo", OK, f"{MX}:25 sees 192.0.2.1")
        self.assertEqual((report.configured, report.seen), ("192.0.2.1", "192.0.2.1"))
        self.assertTrue(report.reported.startswith("192.0.2.1:"))
        [visit] = script.played
        visit.assert_finished()

    def test_unplumbed(self) -> None:
        """An address that this machine does not have is a bind failure, and nobody is visited."""
        self.network.servers[MX, 25] = lambda: ConnectBindError(99, "Cannot assign")
        report = self.check(self.source, mx=MX)
        self.assertEqual(self.finding(report, "bind").status, FAILURE)
        self.assertIn("Cannot assign", self.finding(report, "bind").text)
        self.assert_found(report, "mx", SKIPPED, NOT_TRIED)

    def test_refused(self) -> None:
        """Port 25 that refuses is the destination's failure; the address is all right."""
        report = self.check(self.source, mx=MX)
        self.assertEqual(self.statuses(report)["bind"], "ok")
        self.assertIn("refused", self.finding(report, "mx").text)
        self.assertEqual(report.status, FAILURE)

    def test_host_does_not_want_us(self) -> None:
        """A refusal in the greeting is quoted."""
        self.put(MX, 25, Send(b"554 5.7.1 you are on a list\r\n"), Expect(b"QUIT\r\n"), Close())
        found = self.finding(self.check(self.source, mx=MX), "mx")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("554 5.7.1 you are on a list", found.text)

    def test_hang(self) -> None:
        """A host that says nothing is given up in time."""
        self.put(MX, 25, Expect(b"never"))
        checking = self.start(self.source, mx=MX, timeout="7s")
        self.network.pass_time(6)
        self.assertNoResult(checking)
        self.network.pass_time(2)
        [report] = self.successResultOf(checking)
        self.assertIn("timed out after 7 s", self.finding(report, "mx").text)

    def test_silent_network(self) -> None:
        """So is an address that does not answer."""
        self.network.servers[MX, 25] = None
        checking = self.start(self.source, mx=MX, timeout="7s")
        self.network.pass_time(9)
        [report] = self.successResultOf(checking)
        self.assertEqual(self.finding(report, "mx").status, FAILURE)

    def test_family(self) -> None:
        """Of a host's addresses the one of the source's family is visited; a host without one is
        a warning, since it says nothing of the source."""
        self.records["mx.example"] = ["A 192.0.2.25", "AAAA 2001:db8::25"]
        self.records["four.example"] = ["A 192.0.2.25"]
        self.put("2001:db8::25", 25, *smtp())
        six = make_source(source_address="2001:db8::1")
        found = self.finding(self.check(six, mx="mx.example"), "mx")
        self.assertEqual(found.status, OK)
        self.assertIn("mx.example ([2001:db8::25]:25) greets", found.text)
        self.assert_found(
            self.check(six, mx="four.example"),
            "mx",
            WARNING,
            "four.example has no address of the family of 2001:db8::1",
        )

    def test_no_such_host(self) -> None:
        """A host that cannot be found is a failure."""
        self.broken["mx.example"] = "timed out"
        report = self.check(self.source, mx="mx.example")
        self.assert_found(report, "mx", FAILURE, "mx.example cannot be looked up: timed out")
        self.assert_found(
            self.check(self.source, mx="no.example"), "mx", FAILURE, "no.example has no address"
        )

    def test_remote_port(self) -> None:
        """A source that always connects to one port is checked at that port."""
        self.put(MX, 587, *smtp())
        source = make_source(source_address="192.0.2.1", remote_port="587")
        self.assertEqual(self.finding(self.check(source, mx=MX), "mx").status, OK)

    def test_nothing_to_visit(self) -> None:
        """Without a host nobody is connected to; all that is known is that the address is there,
        and that is not all right."""
        report = self.check(make_source(source_address="10.0.0.1"))
        self.assertEqual(self.statuses(report), {"bind": "ok", "mx": "unknown", "echo": "skipped"})
        self.assertEqual(report.status, Status.UNKNOWN)
        self.assertIn("whether mail gets out is not known", self.finding(report, "mx").text)
        self.assertEqual(self.statuses(self.check(make_source()))["mx"], "unknown")
        self.assertEqual(self.network.connections, [])

    def test_unplumbed_without_host(self) -> None:
        """An address that this machine does not have fails without a host to visit, and with one
        that has no address of its family or that cannot be found."""
        self.unplumbed.add("192.0.2.1")
        self.records["six.example"] = ["AAAA 2001:db8::25"]
        for host in ({}, {"mx": "six.example"}, {"mx": "nosuch.example"}):
            report = self.check(self.source, **host)
            self.assert_found(
                report, "bind", FAILURE,
                "192.0.2.1 cannot be used here: Cannot assign requested address",
            )  # fmt: skip
            self.assertEqual(report.status, FAILURE)

    def test_bind_here(self) -> None:
        """This machine has its loopback address, and none that is reserved for documentation."""
        self.assertIsNone(bind_here(ipaddress.ip_address("127.0.0.1")))
        self.assertIsInstance(bind_here(ipaddress.ip_address("192.0.2.77")), OSError)


class SOCKS5Tests(CheckCase):
    """A source with an address at a SOCKS5 proxy."""

    source = make_source(
        socks5_proxy_server="10.0.5.10:5000", socks5_proxy_source_address="10.0.0.1"
    )

    def test_all_right(self) -> None:
        """Every step is told; the address is confirmed by the proxy and by an echo peer."""
        script = self.put(*PROXY, *through(*smtp("mx.example at your service, [10.0.0.1]")))
        report = self.check(self.source, mx=MX, echo=f"{MX}:25")
        self.assert_found(report, "proxy", OK, "10.0.5.10:5000 is reachable, 0 ms")
        self.assert_found(report, "bind", OK, "10.0.0.1 is confirmed by the proxy (10.0.0.1:40001)")
        self.assert_found(report, "mx", OK, f"{MX}:25 greets: 220 mx.example ESMTP, 0 ms")
        self.assert_found(report, "echo", OK, f"{MX}:25 sees 10.0.0.1")
        self.assertEqual(report.reported, "10.0.0.1:40001")
        self.assertEqual(report.status, OK)
        script.played[0].assert_finished()

    def test_unreachable(self) -> None:
        """A proxy that is not there is the failure; what follows was not tried."""
        report = self.check(self.source, mx=MX)
        self.assertIn("cannot connect to the proxy", self.finding(report, "proxy").text)
        self.assert_found(report, "bind", SKIPPED, NOT_TRIED)
        self.assert_found(report, "mx", SKIPPED, NOT_TRIED)
        self.assert_found(report, "echo", SKIPPED, "no echo peer is named (--echo ADDR:PORT)")

    def test_bind_refused(self) -> None:
        """A proxy that does not do this kind of BIND is reachable, and the bind fails."""
        self.put(*PROXY, *dialogue(Send(reply(7))))
        report = self.check(self.source, mx=MX, echo=f"{MX}:25")
        self.assertEqual(
            self.statuses(report),
            {"proxy": "ok", "bind": "failure", "mx": "skipped", "echo": "skipped"},
        )
        self.assertEqual(
            self.finding(report, "bind").text,
            "the proxy refused to bind 10.0.0.1 (REP 07, command not supported); an ordinary "
            "SOCKS5 proxy chooses the address itself: leave socks5_proxy_source_address out, or "
            "use KumoProxy",
        )
        self.put(*PROXY, *dialogue(Send(reply(2))))
        found = self.finding(self.check(self.source, mx=MX), "bind")
        self.assertNotIn("ordinary", found.text)

    def test_bind_elsewhere(self) -> None:
        """A proxy that binds another address, and calls it a success, fails."""
        self.put(*PROXY, *dialogue(Send(reply(0, b"\x0a\x00\x00\x09"))))
        found = self.finding(self.check(self.source, mx=MX), "bind")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("instead of 10.0.0.1", found.text)

    def test_connected_from_elsewhere(self) -> None:
        """So does one that tells the truth only when it has connected."""
        steps = (*dialogue(Send(reply())), Expect(CONNECT), Send(reply(0, b"\x0a\x00\x00\x09")))
        self.put(*PROXY, *steps)
        report = self.check(self.source, mx=MX)
        self.assertEqual(self.finding(report, "bind").status, FAILURE)
        self.assertEqual(self.finding(report, "mx").status, SKIPPED)

    def test_bind_cut_off(self) -> None:
        """A proxy that hangs up instead of answering BIND fails there."""
        self.put(*PROXY, *dialogue(Close()))
        self.assertIn("BIND", self.finding(self.check(self.source, mx=MX), "bind").text)

    def test_bind_hangs(self) -> None:
        """A proxy that never answers BIND fails there, in time."""
        self.put(*PROXY, *dialogue())
        checking = self.start(self.source, mx=MX, timeout="7s")
        self.network.pass_time(8)
        [report] = self.successResultOf(checking)
        self.assert_found(report, "bind", FAILURE, "no answer to BIND within 7 s")

    def test_destination(self) -> None:
        """What the proxy says of the destination speaks of the destination."""
        for rep, words in ((5, "connection refused"), (2, "rules do not allow")):
            steps = (*dialogue(Send(reply())), Expect(CONNECT), Send(reply(rep)))
            self.put(*PROXY, *steps)
            report = self.check(self.source, mx=MX)
            self.assertEqual(self.finding(report, "bind").status, OK)
            self.assertIn(words, self.finding(report, "mx").text)

    def test_not_socks(self) -> None:
        """Whatever is no SOCKS5 proxy is no proxy."""
        self.put(*PROXY, Expect(GREETING), Send(b"HTTP/1.1 400 Bad Request\r\n"))
        report = self.check(self.source, mx=MX)
        self.assertEqual(self.finding(report, "proxy").status, FAILURE)
        self.assertIn("HTTP instead of SOCKS5", self.finding(report, "proxy").text)

    def test_wants_a_login(self) -> None:
        """A proxy that wants a login which is not configured says so in the step of logging in."""
        self.put(*PROXY, Expect(GREETING), Send(b"\x05\xff"))
        report = self.check(self.source, mx=MX)
        self.assertEqual(self.statuses(report)["proxy"], "ok")
        self.assertIn("authentication methods", self.finding(report, "login").text)

    def test_login(self) -> None:
        """A login that is accepted, one that nobody asks for, and one that is refused; the password
        is never shown."""
        source = make_source(
            socks5_proxy_server="10.0.5.10:5000",
            socks5_proxy_source_address="10.0.0.1",
            socks5_proxy_username="alice",
            socks5_proxy_password="wonderland",
        )
        hello = (
            Expect(b"\x05\x02\x00\x02"),
            Send(b"\x05\x02"),
            Expect(b"\x01\x05alice\x0awonderland"),
        )
        rest = (Expect(BIND), Send(reply()), Expect(CONNECT), Send(reply()), *smtp())
        self.put(*PROXY, *hello, Send(b"\x01\x00"), *rest)
        report = self.check(source, mx=MX)
        self.assert_found(report, "login", OK, "accepted (alice)")
        self.put(*PROXY, Expect(b"\x05\x02\x00\x02"), Send(b"\x05\x00"), *rest)
        report = self.check(source, mx=MX)
        self.assert_found(report, "login", WARNING, NO_LOGIN)
        self.put(
            *PROXY,
            Expect(b"\x05\x02\x00\x02"),
            Send(b"\x05\x00"),
            Expect(BIND),
            Send(b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"),
        )
        report = self.check(source, mx=MX)
        self.assert_found(report, "login", WARNING, NO_LOGIN)
        self.assertIn("it asked for no login", self.finding(report, "bind").text)
        self.put(*PROXY, *hello, Send(b"\x01\x01"))
        report = self.check(source, mx=MX)
        self.assertEqual(self.statuses(report)["proxy"], "ok")
        self.assertEqual(self.finding(report, "login").status, FAILURE)
        self.assertNotIn("wonderland", repr(report))

    def test_early_success(self) -> None:
        """Where the proxy says "connected" and then nothing comes, both may be to blame."""
        self.put(*PROXY, *through(Close()))
        found = self.finding(self.check(self.source, mx=MX), "mx")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("the proxy may not have reached it, or the port is filtered", found.text)

    def test_proxy_alone(self) -> None:
        """Without a host to visit the proxy is greeted and asked to bind, and hung up on; whether
        mail gets out stays unknown."""
        script = self.put(*PROXY, *dialogue(Send(reply())))
        report = self.check(self.source)
        self.assert_found(report, "proxy", OK, "10.0.5.10:5000 is reachable, 0 ms")
        self.assert_found(report, "bind", OK, "10.0.0.1 is confirmed by the proxy (10.0.0.1:40000)")
        self.assertEqual((report.status, report.reported), (Status.UNKNOWN, "10.0.0.1:40000"))
        script.played[0].assert_finished()
        self.assertIsNotNone(script.played[0].lost)
        del self.network.servers[PROXY]
        self.assertEqual(self.finding(self.check(self.source), "proxy").status, FAILURE)

    def test_broken_without_host(self) -> None:
        """What a proxy refuses before the destination is found without one: the address, the login;
        and that it is no proxy at all."""
        self.put(*PROXY, *dialogue(Send(reply(1))))
        found = self.finding(self.check(self.source), "bind")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("the proxy refused to bind 10.0.0.1", found.text)
        self.put(*PROXY, Expect(b"\x05\x02\x00\x02"), Send(b"\x05\x02"),
                 Expect(b"\x01\x05alice\x05wrong"), Send(b"\x01\x01"))  # fmt: skip
        source = make_source(
            socks5_proxy_server="10.0.5.10:5000",
            socks5_proxy_username="alice",
            socks5_proxy_password="wrong",
        )
        report = self.check(source)
        self.assertEqual(self.finding(report, "login").status, FAILURE)
        self.assertEqual((report.status, self.statuses(report)["mx"]), (FAILURE, "skipped"))
        self.put(*PROXY, Send(b"220 mx.example ESMTP\r\n"), Expect(GREETING))
        found = self.finding(self.check(self.source), "proxy")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("not SOCKS5", found.text)

    def test_family_without_host(self) -> None:
        """A host of one family leaves the way out of the other to be tried without it."""
        self.records["four.example"] = ["A 192.0.2.25"]
        source = make_source(
            socks5_proxy_server="10.0.5.10:5000", socks5_proxy_source_address="2001:db8::1"
        )
        self.put(*PROXY, Expect(GREETING), Send(b"\x05\x00"), Expect(BIND6), Send(reply(1)))
        report = self.check(source, mx="four.example")
        self.assertEqual(self.statuses(report)["bind"], "failure")

    def test_proxies_and_addresses(self) -> None:
        """Several proxies and addresses are several ways, each checked by itself."""
        bound = b"\x05\x00\x00" + BIND6[3:]
        six = Script(Expect(GREETING), Send(b"\x05\x00"), Expect(BIND6), Send(bound))
        self.network.servers[PROXY] = InTurn(Script(*through(*smtp())), six)
        source = make_source(
            socks5_proxy_server="10.0.5.10:5000, 10.0.5.11:5000",
            socks5_proxy_source_address="10.0.0.1, 2001:db8::1",
        )
        reports = self.check_all(source, mx=MX)
        self.assertEqual(
            [
                (one.server, one.configured, self.finding(one, "proxy").status.value,
                 self.finding(one, "mx").status.value)
                for one in reports
            ],
            [
                ("10.0.5.10:5000", "10.0.0.1", "ok", "ok"),
                ("10.0.5.10:5000", "2001:db8::1", "ok", "warning"),
                ("10.0.5.11:5000", "10.0.0.1", "failure", "skipped"),
                ("10.0.5.11:5000", "2001:db8::1", "failure", "warning"),
            ],
        )  # fmt: skip

    def test_without_an_address(self) -> None:
        """A source that leaves the address to the proxy is believed what an echo peer sees."""
        unknown = Send(reply(0, b"\x00\x00\x00\x00", 0))
        connect = (Expect(GREETING), Send(b"\x05\x00"), Expect(CONNECT), unknown)
        self.put(*PROXY, *connect, *smtp("mx.example greets [198.51.100.9]"))
        report = self.check(make_source(socks5_proxy_server="10.0.5.10:5000"), mx=MX)
        self.assertEqual(self.statuses(report)["echo"], "ok")
        self.assertNotIn("bind", self.statuses(report))
        self.assertEqual((report.reported, report.seen), ("", "198.51.100.9"))


class HAProxyTests(CheckCase):
    """A source with an address at an HAProxy, which answers nothing by itself."""

    source = make_source(ha_proxy_server="10.0.5.10:2526", ha_proxy_source_address="10.0.0.2")
    header = Expect(
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x00\x00\x02\xc0\x00\x02\x19\x00\x00\x00\x19"
    )

    def test_all_right(self) -> None:
        """Only an echo peer can tell that the address is used."""
        self.put("10.0.5.10", 2526, self.header, *smtp("echo [10.0.0.2]"))
        report = self.check(self.source, mx=MX, echo=f"{MX}:25")
        self.assert_found(report, "proxy", OK, "10.0.5.10:2526 is reachable, 0 ms")
        self.assert_found(report, "bind", SKIPPED, "HAProxy does not tell whether it uses 10.0.0.2")
        self.assert_found(report, "echo", OK, f"{MX}:25 sees 10.0.0.2")
        self.assertEqual(report.reported, "")

    def test_silence(self) -> None:
        """A connection that is closed before the greeting is a failure that blames nobody."""
        self.put("10.0.5.10", 2526, self.header, Close())
        found = self.finding(self.check(self.source, mx=MX), "mx")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("may not be able to use the source address, or to reach", found.text)


class EndpointTests(CheckCase):
    """A source that is an endpoint string."""

    source = make_source(
        endpoint="socks5:{host}:{port}:server=10.0.5.10\\:5000:source=10.0.0.1:timeout=5"
    )

    def test_all_right(self) -> None:
        """The proxy and the address that the string names are told as of any other source."""
        self.put(*PROXY, *through(*smtp()))
        report = self.check(self.source, mx=MX)
        self.assert_found(report, "proxy", OK, "10.0.5.10:5000 is reachable")
        self.assert_found(report, "bind", OK, "10.0.0.1 is confirmed by the proxy (10.0.0.1:40001)")
        self.assertEqual(self.finding(report, "mx").status, OK)
        self.assertEqual((report.configured, report.reported), ("10.0.0.1", "10.0.0.1:40001"))
        self.assertEqual((report.protocol, report.server), ("socks5", "10.0.5.10:5000"))
        [heading, *_] = table([report])
        self.assertEqual(heading, "ip-1: socks5 10.0.5.10:5000 from 10.0.0.1, EHLO mta.example")

    def test_without_host(self) -> None:
        """Without a host to visit such a proxy is asked what can be asked, too."""
        self.put(*PROXY, *dialogue(Send(reply(1))))
        self.assertEqual(self.statuses(self.check(self.source))["bind"], "failure")
        self.put("10.0.5.10", 3128)
        http = make_source(
            endpoint="http-connect:{host}:{port}:server=10.0.5.10\\:3128:username=u:password=p"
        )
        report = self.check(http)
        self.assertEqual(
            self.statuses(report),
            {"proxy": "ok", "login": "skipped", "mx": "unknown", "echo": "skipped"},
        )
        local = make_source(endpoint="tcp:{host}:{port}:bindAddress=192.0.2.9")
        self.unplumbed.add("192.0.2.9")
        self.assertEqual(self.statuses(self.check(local))["bind"], "failure")
        foreign = make_source(endpoint="unix:/run/{host}.sock")
        report = self.check(foreign)
        self.assertEqual(self.statuses(report)["proxy"], "skipped")
        self.assertIn('ip-1: endpoint "unix:/run/{host}.sock", EHLO', next(table([report])))

    def test_failures(self) -> None:
        """What goes wrong is told as of any other source."""
        self.assertEqual(self.finding(self.check(self.source, mx=MX), "proxy").status, FAILURE)
        self.put(*PROXY, *dialogue(Send(reply(7))))
        self.assertIn("REP 07", self.finding(self.check(self.source, mx=MX), "bind").text)
        report = self.check(self.source, mx="[2001:db8::25]:25")
        self.assertEqual(self.finding(report, "mx").status, WARNING)
        self.assertIn("no address of the family", self.finding(report, "mx").text)


class EchoTests(CheckCase):
    """Where a source really leaves from."""

    def echo(self, configured: str, hello: str, **more: str) -> tuple[Status, str]:
        """What a peer that answers so makes of a direct source."""
        self.put("203.0.113.7", 2526, *smtp(hello))
        report = self.check(make_source(source_address=configured, **more), echo="203.0.113.7:2526")
        found = self.finding(report, "echo")
        return found.status, found.text.removeprefix("203.0.113.7:2526 ")

    def test_forms(self) -> None:
        """An address literal anywhere in the line will do, in either family's form."""
        for hello, configured in (
            ("mx Hello mta.example [192.0.2.1]", "192.0.2.1"),
            ("mx at your service, [192.0.2.1]", "192.0.2.1"),
            ("mx [nonsense:] [::ffff:192.0.2.1]", "192.0.2.1"),
        ):
            self.assertEqual(self.echo(configured, hello), (OK, "sees 192.0.2.1"))

    def test_another_address(self) -> None:
        """Another address than the configured one is a failure."""
        self.assertEqual(
            self.echo("192.0.2.1", "echo [192.0.2.2]"), (FAILURE, "sees 192.0.2.2, not 192.0.2.1")
        )
        self.assertEqual(self.echo("127.0.0.9", "echo [127.0.0.1]")[0], FAILURE)

    def test_translated(self) -> None:
        """A private address that is seen as a public one was translated on the way."""
        self.assertEqual(
            self.echo("10.0.0.1", "echo [192.0.2.2]"),
            (OK, "sees 192.0.2.2: 10.0.0.1 is translated on the way"),
        )
        self.assertEqual(self.echo("10.0.0.1", "echo [10.0.0.2]")[0], FAILURE)

    def test_no_echo(self) -> None:
        """A peer that does not tell is of no use, which is said."""
        status, text = self.echo("192.0.2.1", "echo [], [x], [999.0.2.1]")
        self.assertEqual(status, WARNING)
        self.assertIn("does not name our address", text)

    def test_unreachable(self) -> None:
        """An echo peer that is not there is a failure of the check."""
        report = self.check(make_source(source_address="192.0.2.1"), echo="203.0.113.7:2526")
        self.assertEqual(self.finding(report, "echo").status, FAILURE)

    def test_mail_host_as_echo(self) -> None:
        """Without an echo peer, what the mail host says it sees counts if it fits, and is a
        warning if it does not: it may stand behind a translator."""
        source = make_source(source_address="192.0.2.1")
        self.put(MX, 25, *smtp("mx [192.0.2.1]"))
        self.assertEqual(self.finding(self.check(source, mx=MX), "echo").status, OK)
        self.put(MX, 25, *smtp("mx [10.9.9.9]"))
        report = self.check(source, mx=MX)
        self.assertEqual((self.finding(report, "echo").status, report.seen), (WARNING, ""))
        self.put(MX, 25, *smtp("mx"))
        self.assertEqual(self.finding(self.check(source, mx=MX), "echo").status, SKIPPED)

    def test_shared(self) -> None:
        """Sources with addresses of their own that are seen as one are told of each other."""
        self.put("203.0.113.7", 2526, *smtp("echo [192.0.2.2]"))
        sources = [make_source(f"ip-{n}", source_address=f"10.0.0.{n}") for n in (1, 2)]
        reports = self.check_all(*sources, echo="203.0.113.7:2526")
        self.assert_found(
            reports[0], "shared", WARNING, "ip-2 (10.0.0.2) leaves from 192.0.2.2, too"
        )
        self.assertEqual(self.finding(reports[1], "shared").status, WARNING)

    def test_several_hosts(self) -> None:
        """The mail host and the echo peer are visited in turn."""
        mx = self.put(MX, 25, *smtp())
        echo = self.put("203.0.113.7", 2526, *smtp("echo [192.0.2.1]"))
        source = make_source(source_address="192.0.2.1")
        report = self.check(source, mx=MX, echo="203.0.113.7:2526")
        self.assertEqual(self.statuses(report), {"bind": "ok", "mx": "ok", "echo": "ok"} | {
            "ptr": "failure", "ehlo": "warning"
        })  # fmt: skip
        self.assertEqual((len(mx.played), len(echo.played)), (1, 1))
