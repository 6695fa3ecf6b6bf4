"""Tests for the client's side of HTTP CONNECT (RFC 9110, 9.3.6; RFC 9112)."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.http_connect import (
    MAX_HEAD,
    MAX_LINES,
    MAX_LOGIN,
    Established,
    Event,
    HTTPConnectClient,
    Refused,
)
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.socks5.format import Address

V4 = Address(ipaddress.ip_address("192.0.2.1"), 25)
BANNER = b"220 mx ESMTP\r\n\r\n"


def whole(data: bytes) -> Iterable[bytes]:
    """The data in one piece."""
    return [data]


def octet_by_octet(data: bytes) -> Iterable[bytes]:
    """The data in pieces of one octet."""
    return [data[number : number + 1] for number in range(len(data))]


CUTS: tuple[Callable[[bytes], Iterable[bytes]], ...] = (whole, octet_by_octet)


def run(client: HTTPConnectClient, pieces: Iterable[bytes]) -> tuple[Event | None, bytes]:
    """Feed a client until it decides; what it decided, and what follows the negotiation."""
    decided: Event | None = None
    left = b""
    for piece in pieces:
        if decided is not None:
            left += piece
            continue
        client.receive_data(piece)
        event = client.next_event()
        if event is not NEED_DATA:
            decided = event
            left = client.trailing_data
    return decided, left


class RequestTests(SynchronousTestCase):
    """What is said."""

    def test_addresses(self) -> None:
        """The target and the Host are host and port; an IPv6 address stands in brackets."""
        for host, text in (
            (ipaddress.ip_address("192.0.2.1"), b"192.0.2.1:25"),
            (ipaddress.ip_address("2001:db8::1"), b"[2001:db8::1]:25"),
            ("mx_1.Example-host.com.", b"mx_1.Example-host.com.:25"),
        ):
            request = HTTPConnectClient(Address(host, 25)).start()
            self.assertEqual(
                request, b"CONNECT " + text + b" HTTP/1.1\r\nHost: " + text + b"\r\n\r\n"
            )

    def test_login(self) -> None:
        """A login is sent by the Basic scheme, in UTF-8; a password may have colons or be empty."""
        for username, password in (("user", "s:e c"), ("müller", "ß"), ("key", "")):
            request = HTTPConnectClient(V4, username=username, password=password).start()
            coded = base64.b64encode(f"{username}:{password}".encode())
            self.assertTrue(
                request.endswith(b"\r\nProxy-Authorization: Basic " + coded + b"\r\n\r\n")
            )

    def test_nothing_is_smuggled(self) -> None:
        """A host name that could end a word or a line is refused."""
        for host in (
            "",
            "a b",
            "a\r\nX: y",
            "a\nb",
            "a\x00b",
            "a\tb",
            "a/b",
            "a:1",
            "u@a",
            "[::1]",
            "a?b",
            "a#b",
            "a%0d",
            "mü",
            "a" * 256,
        ):
            self.assertRaises(LocalProtocolError, HTTPConnectClient, Address(host, 25))
        for port in (-1, 0, 65536):
            self.assertRaises(LocalProtocolError, HTTPConnectClient, Address("a", port))
        zoned = Address(ipaddress.ip_address("fe80::1%a b"), 25)
        self.assertRaises(LocalProtocolError, HTTPConnectClient, zoned)

    def test_wrong_logins(self) -> None:
        """What the Basic scheme cannot carry is refused, and not quoted."""
        for username, password in (
            (None, "s3cret"),
            ("s3cret", None),
            ("", "s3cret"),
            ("s3cret:x", "p"),
            ("user", "s3cret\r\nX: y"),
            ("s3cret\n", "p"),
            ("user", "s3cret\x7f"),
            ("user", "s3cret\udc80"),
            ("user", "s3cret" * (MAX_LOGIN // 6)),
        ):
            error = self.assertRaises(
                LocalProtocolError, HTTPConnectClient, V4, username=username, password=password
            )
            self.assertNotIn("s3cret", str(error))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
    def test_always_one_request(self, host: str, username: str, password: str) -> None:
        """Whatever is asked for is refused, or is one request of four lines."""
        try:
            client = HTTPConnectClient(Address(host, 25), username=username, password=password)
        except LocalProtocolError:
            return
        lines = client.start().split(b"\r\n")
        self.assertEqual(len(lines), 5)
        self.assertEqual([lines[0].count(b" "), lines[1].count(b" ")], [2, 1])
        self.assertNotIn(b"\n", b"".join(lines))


class ResponseTests(SynchronousTestCase):
    """What is answered."""

    def assertDecides(self, response: bytes, event: Event) -> None:
        """Whole, octet by octet, and with a banner behind it, the same is decided."""
        for cut in CUTS:
            for banner in (b"", BANNER):
                client = HTTPConnectClient(V4)
                decided, left = run(client, cut(response + banner))
                self.assertEqual(decided, event)
                if isinstance(event, Established):
                    self.assertEqual(left, banner)
                    self.assertEqual(client.phase, "established")
                else:
                    self.assertEqual((client.phase, client.trailing_data), ("failed", b""))
                self.assertRaises(LocalProtocolError, client.receive_data, b"x")
                self.assertRaises(LocalProtocolError, client.next_event)

    def assertBroken(self, response: bytes, words: str) -> None:
        """Whole and octet by octet, the response is a violation of the protocol."""
        for cut in CUTS:
            client = HTTPConnectClient(V4)
            error = self.assertRaises(RemoteProtocolError, run, client, cut(response))
            if cut is whole:
                self.assertIn(words, str(error))
            self.assertLess(len(str(error)), 400)
            self.assertEqual(client.phase, "failed")
            self.assertRaises(LocalProtocolError, client.receive_data, b"x")

    def test_established(self) -> None:
        """Any 2xx is success, with CRLF or LF, with and without a header or words."""
        for response in (
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 200 \r\n\r\n",
            b"HTTP/1.1 299 Fine\n\n",
            b"HTTP/1.1 204 No Content\nA: b\r\n c: folded\n\r\n",
        ):
            self.assertDecides(response, Established())

    def test_body_is_ignored(self) -> None:
        """The lengths and codings that a success must not have do not matter."""
        for field in (b"Content-Length: 3", b"Transfer-Encoding: chunked"):
            self.assertDecides(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n", Established())

    def test_interim(self) -> None:
        """Interim responses are skipped with their headers."""
        self.assertDecides(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\n\r\n",
            Established(),
        )
        self.assertDecides(
            b"HTTP/1.1 102 Processing\n\nHTTP/1.1 504 Late\r\n\r\n", Refused(504, "Late")
        )

    def test_refused(self) -> None:
        """Every other status is a refusal with its words, decided by the status line alone."""
        for status in (300, 302, 400, 403, 407, 500, 502, 503, 504, 599, 999):
            self.assertDecides(b"HTTP/1.1 %d Not now\r\n" % status, Refused(status, "Not now"))
        self.assertDecides(b"HTTP/1.0 503\n", Refused(503, ""))
        self.assertDecides(b"HTTP/1.0 503 \xff\xc3\xbc\n", Refused(503, "\\xffü"))

    def test_something_else(self) -> None:
        """What is not HTTP/1 is refused by its first octets."""
        for response, words in (
            (b"\x05\xff", "looks like SOCKS"),
            (b"\x00\x5b", "looks like SOCKS"),
            (b"\x15\x03\x01", "looks like TLS"),
            (b"220 mx ESMTP\r\n", "not HTTP"),
            (b"HTTQ", "not HTTP"),
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "not HTTP"),
            (b"HTTP/2 200\r\n", "not HTTP/1"),
            (b"HTTP/1.1 20 OK\r\n", "not HTTP/1"),
            (b"HTTP/1.1 099 OK\r\n", "not HTTP/1"),
            (b"HTTP/1.1  200 OK\r\n", "not HTTP/1"),
            (b"HTTP/1.1 2000 OK\r\n", "not HTTP/1"),
            (b"HTTP/1.1 200 O\x00K\r\n", "control character"),
            (b"HTTP/1.1 200 O\rK\r\n", "control character"),
            (b"HTTP/1.1 101 Switching Protocols\r\n", "not asked for"),
            (b"HTTP/1.1 200 OK\r\n220 mx ESMTP\r\n", "without a name"),
            (b"HTTP/1.1 200 OK\r\n: x\r\n", "without a name"),
            (b"HTTP/1.1 100 Continue\r\n\r\n\x05", "looks like SOCKS"),
        ):
            self.assertBroken(response, words)

    def test_endless(self) -> None:
        """A header without end is given up, in octets and in lines, over all responses."""
        head = b"HTTP/1.1 200 OK\r\n"
        for response in (
            b"HTTP/1.1 200 " + b"x" * MAX_HEAD,
            head + b"X: " + b"x" * MAX_HEAD,
            head + b"X: " + b"x" * MAX_HEAD + b"\r\n\r\n",
            head + b"X: y\r\n" * MAX_LINES,
            b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_LINES,
        ):
            self.assertBroken(response, "without end")

    def test_as_long_as_allowed(self) -> None:
        """The limits are what is allowed, and do not hold for the stream behind the header."""
        head = b"HTTP/1.1 200 OK\r\n"
        self.assertDecides(head + b"X: y\r\n" * (MAX_LINES - 2) + b"\r\n", Established())
        filler = MAX_HEAD - len(head) - len(b"X: \r\n\r\n")
        client = HTTPConnectClient(V4)
        decided, left = run(
            client, [head + b"X: " + b"x" * filler + b"\r\n\r\n" + b"\x00" * 4 * MAX_HEAD]
        )
        self.assertEqual((decided, left), (Established(), b"\x00" * 4 * MAX_HEAD))

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]))
    def test_anything(self, data: bytes, start: bytes) -> None:
        """Whatever arrives, in whatever pieces, comes to the same end."""
        ends = []
        for cut in CUTS:
            client = HTTPConnectClient(V4)
            try:
                ends.append((run(client, cut(start + data)), client.phase))
            except RemoteProtocolError:
                ends.append(((None, b""), client.phase))
        self.assertEqual(ends[0], ends[1])
