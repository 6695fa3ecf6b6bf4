"""HAProxy's PROXY protocol as a receiver meets it: version 1 or 2, told apart by itself.

Version 1 (proxy-protocol.txt, 2.1) is one line of at most 107 octets::

    PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 CR LF
    PROXY UNKNOWN CR LF
"""

from __future__ import annotations

import ipaddress
import re

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.proxy_v2 import Header, HeaderParser
from kumotwist.wire.socks5.format import Address

__all__ = ["MAX_LINE", "AnyHeaderParser", "parse_line"]

#: Octets of a header of version 1 with its CRLF.
MAX_LINE = 107

_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5})")


def parse_line(line: bytes) -> Header:
    """Read a header of version 1.

    @param line: without its CRLF.
    @return: for C{UNKNOWN} one without addresses, whatever else the line says.
    @raise RemoteProtocolError: if it is none.
    """
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(False, None, None)
    match = _LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError(f"not a PROXY header: {line!r}")
    family, *hosts = (part.decode("ascii") for part in match.group(1, 2, 3))
    make = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    ports = [int(part) for part in match.group(4, 5)]
    if max(ports) > 65535 or any(
        str(port).encode() != text for port, text in zip(ports, match.group(4, 5), strict=True)
    ):
        raise RemoteProtocolError(f"a wrong port in a PROXY header: {line!r}")
    try:
        source, destination = (make(host) for host in hosts)
    except ValueError:
        raise RemoteProtocolError(f"a wrong address in a PROXY header: {line!r}") from None
    return Header(False, Address(source, ports[0]), Address(destination, ports[1]))


class AnyHeaderParser:
    """Reads one header of either version from the beginning of a stream."""

    def __init__(self) -> None:
        self._v2: HeaderParser | None = None
        self._buffer = b""
        self._done = False

    def receive_data(self, data: bytes) -> None:
        """Take octets, of any number, cut anywhere."""
        if self._v2 is not None:
            self._v2.receive_data(data)
        else:
            self._buffer += data

    @property
    def trailing_data(self) -> bytes:
        """What arrived behind the header: the beginning of the stream."""
        if self._v2 is not None:
            return self._v2.trailing_data
        return self._buffer if self._done else b""

    def next_event(self) -> Header | NeedData:
        """The header, or L{NEED_DATA}.

        @raise RemoteProtocolError: if it is not a valid header; the connection must be dropped.
        @raise LocalProtocolError: if the header has ended.
        """
        if self._v2 is not None:
            return self._v2.next_event()
        if self._done:
            raise LocalProtocolError("the header has ended")
        if self._buffer.startswith(b"\r"):
            self._v2 = HeaderParser()
            self._v2.receive_data(self._buffer)
            self._buffer = b""
            return self._v2.next_event()
        return self._read_line()

    def _read_line(self) -> Header | NeedData:
        buffer = self._buffer
        end = buffer.find(b"\r\n", 0, MAX_LINE)
        if buffer[:6] != b"PROXY "[: len(buffer)] or (end < 0 and len(buffer) >= MAX_LINE):
            self._done = True
            self._buffer = b""
            raise RemoteProtocolError(f"not a PROXY header: {buffer[:16]!r}")
        if end < 0:
            return NEED_DATA
        self._done = True
        self._buffer = b""
        header = parse_line(buffer[:end])
        self._buffer = buffer[end + 2 :]
        return header
