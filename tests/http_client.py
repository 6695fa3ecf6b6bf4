"""Requests to an HTTP site over a transport in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPFactory

__all__ = ["Connection"]

HERE = IPv4Address("TCP", "127.0.0.1", 8000)


class Connection:
    """One client of a site.

    @param peer: where it comes from: a Twisted address.
    """

    def __init__(self, site: HTTPFactory, peer: Any = None) -> None:
        peer = peer or IPv4Address("TCP", "127.0.0.1", 40000)
        protocol = site.buildProtocol(peer)
        assert protocol is not None
        self.protocol = protocol
        self.transport = StringTransport(hostAddress=HERE, peerAddress=peer)
        self.protocol.makeConnection(self.transport)

    def ask(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str | None = "127.0.0.1:8000",
        body: bytes = b"",
    ) -> Connection:
        """Send a request."""
        lines = [f"{method} {path} HTTP/1.1", *headers]
        if host is not None:
            lines.append(f"Host: {host}")
        self.protocol.dataReceived("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
        return self

    def leave(self) -> None:
        """Close the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def said(self) -> bytes:
        """Everything that the site has sent."""
        said: bytes = self.transport.value()
        return said

    @property
    def status(self) -> int:
        """The status of the first answer."""
        return int(self.said.split(b" ", 2)[1])

    @property
    def header(self) -> str:
        """The header of the first answer, in lower case."""
        return self.said.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        """The body of the first answer, taken out of its chunks."""
        rest = self.said.partition(b"\r\n\r\n")[2]
        if "transfer-encoding: chunked" not in self.header:
            return rest
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body += rest[:length]
            rest = rest[length + 2 :]
        return body

    def events(self) -> list[dict[str, Any]]:
        """The lines of the body."""
        return [json.loads(line) for line in self.body.splitlines()]
