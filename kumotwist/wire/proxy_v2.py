"""HAProxy's PROXY protocol, version 2 (proxy-protocol.txt, 2.2), for both sides, without I/O.

One binary header stands before everything else on a connection and names the two ends of a stream
that passes through somebody else::

    0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A   signature
    21                                    version 2, command PROXY (20 is LOCAL)
    11 or 21                              TCP over IPv4 or over IPv6
    length                                of everything that follows, two octets
    source address, destination address, source port, destination port, TLVs

Nothing is answered. L{encode_header} writes one, L{HeaderParser} reads one.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from attrs import define

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.socks5.format import Address

__all__ = [
    "MAX_LENGTH",
    "SIGNATURE",
    "Header",
    "HeaderParser",
    "Tlv",
    "TlvType",
    "encode_header",
]

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"

#: How many octets may follow a header's length. The format allows 65535; HAProxy's own receivers
#: take what fits into a buffer of 16 KiB, and real headers stay below 1 KiB.
MAX_LENGTH: Final = 16384

_FIXED = 16
_LOCAL = 0x20
_PROXY = 0x21
_STREAM = 1
_FAMILIES = {0: 0, 1: 12, 2: 36, 3: 216}
_MAX_UNIQUE_ID = 128


class TlvType(enum.IntEnum):
    """Types of additional facts (2.2.1 to 2.2.7)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30


class Tlv(NamedTuple):
    """An additional fact: a type (see L{TlvType}) and its octets."""

    type: int
    value: bytes


@define(frozen=True)
class Header:
    """What a header said.

    @ivar local: the sender speaks for itself (a health check); the connection's own addresses hold.
    @ivar source: who opened the stream, or L{None} where it is not a TCP address or C{local}.
    @ivar destination: whom it was opened to, or L{None} likewise.
    @ivar tlvs: what else was said, in order, without padding.
    """

    local: bool
    source: Address | None
    destination: Address | None
    tlvs: tuple[Tlv, ...] = ()


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    """The table of the reflected Castagnoli polynomial (RFC 4960, Appendix B)."""
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = (octet >> 1) ^ (0x82F63B78 if octet & 1 else 0)
        table.append(octet)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for octet in data:
        crc = (crc >> 8) ^ table[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def encode_header(source: Address, destination: Address, *, tlvs: Sequence[Tlv] = ()) -> bytes:
    """The header for a TCP stream, to be sent before anything else and in one piece.

    @param source: an IP address; port 0 where it is not known.
    @param destination: an IP address of the same family, and its port.
    @param tlvs: additional facts. One of type CRC32C may hold anything: its value is computed.
    @raise LocalProtocolError: if the addresses are not of one family, or if something is too long.
    """
    if isinstance(source.host, str) or isinstance(destination.host, str):
        raise LocalProtocolError("a PROXY header needs IP addresses, not names")
    if source.host.version != destination.host.version:
        raise LocalProtocolError(
            f"source {source.host} and destination {destination.host} are of different families"
        )
    for port in (source.port, destination.port):
        if not 0 <= port <= 65535:
            raise LocalProtocolError(f"port {port} is not between 0 and 65535")
    family = 0x11 if source.host.version == 4 else 0x21
    body = bytearray(source.host.packed + destination.host.packed)
    body += struct.pack("!HH", source.port, destination.port)
    checksum_at = None
    for kind, value in tlvs:
        if kind == TlvType.CRC32C:
            checksum_at, value = _FIXED + len(body) + 3, bytes(4)
        if kind == TlvType.UNIQUE_ID and len(value) > _MAX_UNIQUE_ID:
            raise LocalProtocolError(f"a unique id of {len(value)} octets (128 are possible)")
        if not 0 <= kind <= 255 or len(value) > 65535:
            raise LocalProtocolError(f"TLV {kind} of {len(value)} octets cannot be said")
        body += struct.pack("!BH", kind, len(value)) + value
    if len(body) > 65535:
        raise LocalProtocolError(f"a header of {len(body)} octets (65535 are possible)")
    header = bytearray(SIGNATURE + struct.pack("!BBH", _PROXY, family, len(body)) + body)
    if checksum_at is not None:
        header[checksum_at : checksum_at + 4] = struct.pack("!I", _crc32c(bytes(header)))
    return bytes(header)


class HeaderParser:
    """Reads the header at the beginning of one connection.

    Nothing is guessed: a connection that does not begin with a header is an error, from the first
    octet that differs. The caller decides from whom a header is believed, and how long to wait.
    """

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        """
        @param max_length: how many octets may follow the length; a header that announces more is an
            error at once.
        """
        self._max_length = max_length
        self._buffer = bytearray()
        self._done = False

    def receive_data(self, data: bytes) -> None:
        """Take what arrived; L{LocalProtocolError} once the header has been read or refused."""
        if self._done:
            raise LocalProtocolError("the header has ended")
        self._buffer += data

    @property
    def trailing_data(self) -> bytes:
        """What arrived behind the header: the beginning of the stream."""
        return bytes(self._buffer) if self._done else b""

    def next_event(self) -> Header | NeedData:
        """The header, or L{NEED_DATA}.

        @raise RemoteProtocolError: if it is not a valid header; the connection must be dropped.
        @raise LocalProtocolError: if the header has ended.
        """
        if self._done:
            raise LocalProtocolError("the header has ended")
        try:
            header = self._read()
        except RemoteProtocolError:
            self._done = True
            self._buffer.clear()
            raise
        if header is not NEED_DATA:
            self._done = True
        return header

    def _read(self) -> Header | NeedData:
        buffer = self._buffer
        if bytes(buffer[:12]) != SIGNATURE[: len(buffer)]:
            raise RemoteProtocolError(f"not a PROXY header: {bytes(buffer[:16])!r}")
        if len(buffer) > 12 and buffer[12] not in (_LOCAL, _PROXY):
            raise RemoteProtocolError(f"PROXY version and command {buffer[12]:02x} are unknown")
        if len(buffer) < _FIXED:
            return NEED_DATA
        length = int.from_bytes(buffer[14:16], "big")
        family, transport = divmod(buffer[13], 16)
        local = buffer[12] == _LOCAL
        if length > self._max_length:
            raise RemoteProtocolError(f"a PROXY header of {length} octets is too long")
        if not local:
            if family not in _FAMILIES or transport > 2:
                raise RemoteProtocolError(f"PROXY address family {buffer[13]:02x} is unknown")
            if length < _FAMILIES[family]:
                raise RemoteProtocolError(f"PROXY addresses cut short at {length} octets")
        end = _FIXED + length
        if len(buffer) < end:
            return NEED_DATA
        raw = bytes(buffer[:end])
        del buffer[:end]
        if local:
            return Header(True, None, None)
        tlvs = _read_tlvs(raw, _FIXED + _FAMILIES[family]) if family else ()
        if transport != _STREAM or family not in (1, 2):
            return Header(False, None, None, tlvs)
        return Header(False, *_read_addresses(raw, family), tlvs)


def _read_addresses(raw: bytes, family: int) -> tuple[Address, Address]:
    make = ipaddress.IPv4Address if family == 1 else ipaddress.IPv6Address
    size = 4 if family == 1 else 16
    ports = _FIXED + 2 * size
    source_port, destination_port = struct.unpack_from("!HH", raw, ports)
    return (
        Address(make(raw[_FIXED : _FIXED + size]), source_port),
        Address(make(raw[_FIXED + size : ports]), destination_port),
    )


def _read_tlvs(raw: bytes, offset: int) -> tuple[Tlv, ...]:
    """Read the TLVs behind the addresses and verify the checksum, if there is one (2.2.3)."""
    tlvs = []
    checked = False
    while offset < len(raw):
        if offset + 3 > len(raw):
            raise RemoteProtocolError("a PROXY TLV is cut short")
        kind, length = struct.unpack_from("!BH", raw, offset)
        offset += 3
        if offset + length > len(raw):
            raise RemoteProtocolError(f"PROXY TLV {kind:02x} is longer than the header")
        value = raw[offset : offset + length]
        if kind == TlvType.CRC32C:
            zeroed = raw[:offset] + bytes(length) + raw[offset + length :]
            if checked:
                raise RemoteProtocolError("a PROXY header with two checksums")
            checked = True
            if length != 4 or struct.unpack("!I", value)[0] != _crc32c(zeroed):
                raise RemoteProtocolError("the checksum of the PROXY header is wrong")
        if kind != TlvType.NOOP:
            tlvs.append(Tlv(kind, value))
        offset += length
    return tuple(tlvs)
