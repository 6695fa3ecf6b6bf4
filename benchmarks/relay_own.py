"""A client and a sink of our own, for what Postfix's cannot do: TLS, many domains, moments.

Both run in processes of their own; their CPU is nobody's but theirs. What they measure is when a
message got its 250, and when its last octet reached the sink: C{time.monotonic} is the same clock
in all processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["OwnSink", "own_sink", "send"]

_TIMEOUT = 120.0


class _Conversation(socketserver.StreamRequestHandler):
    """Takes everything; at a poisoned address, says nothing at all."""

    def handle(self) -> None:
        server: Any = self.server
        with contextlib.suppress(OSError):
            if self.connection.getsockname()[0] == server.poisoned:
                time.sleep(_TIMEOUT)
            else:
                self._talk(server)

    def _talk(self, server: Any) -> None:
        reader, wire = self.rfile, self.connection
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.sendall(b"220 sink\r\n")
        offer = b"250-STARTTLS\r\n" if server.context else b""
        while line := reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                wire.sendall(b"250-sink\r\n" + offer + b"250 PIPELINING\r\n")
            elif verb == b"STAR":
                wire.sendall(b"220 go ahead\r\n")
                wire = server.context.wrap_socket(wire, server_side=True)
                reader, offer = wire.makefile("rb"), b""
            elif verb == b"DATA":
                wire.sendall(b"354 go\r\n")
                number = -1
                while (line := reader.readline()) not in (b".\r\n", b""):
                    if line.startswith(b"X-Number: "):
                        number = int(line[10:])
                server.moments.append((number, time.monotonic()))
                wire.sendall(b"250 ok\r\n")
            elif verb == b"QUIT":
                wire.sendall(b"221 bye\r\n")
                return
            else:
                wire.sendall(b"250 ok\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 4096


def _serve(port: int, certificate: str, poisoned: str, pipe: Connection) -> None:
    threading.stack_size(262144)
    server: Any = _Server(("0.0.0.0", port), _Conversation)
    server.moments, server.poisoned, server.context = [], poisoned, None
    if certificate:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(certificate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(None)
    with contextlib.suppress(EOFError):
        while (known := pipe.recv()) != "end":
            pipe.send(server.moments[known:])


class OwnSink:
    """The sink, on all addresses of loopback."""

    def __init__(self, port: int, certificate: Path | None, poisoned: str) -> None:
        self._pipe, other = multiprocessing.Pipe()
        arguments = (port, str(certificate or ""), poisoned, other)
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments)
        self._process.start()
        self._pipe.recv()
        self._known = 0
        self._moments: dict[int, float] = {}

    def moments(self) -> dict[int, float]:
        """When each message came, by its number; the first time, if it came twice."""
        self._pipe.send(self._known)
        news = self._pipe.recv()
        self._known += len(news)
        for number, moment in news:
            self._moments.setdefault(number, moment)
        return self._moments

    def wait(self, numbers: Sequence[int], seconds: float = _TIMEOUT) -> dict[int, float]:
        """Wait until messages have come.

        @raise RuntimeError: they do not.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            moments = self.moments()
            if all(number in moments for number in numbers):
                return moments
            time.sleep(0.1)
        missing = sum(number not in moments for number in numbers)
        raise RuntimeError(f"{missing} of {len(numbers)} messages did not come")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


@contextlib.contextmanager
def own_sink(port: int, certificate: Path | None = None, poisoned: str = "") -> Iterator[OwnSink]:
    """A sink that is stopped at the end.

    @param certificate: a PEM file with key and certificate, for STARTTLS.
    @param poisoned: an address at which connections are taken and nothing is said.
    """
    sink = OwnSink(port, certificate, poisoned)
    try:
        yield sink
    finally:
        sink.stop()


def _open(port: int, tls: bool) -> tuple[socket.socket, Any]:
    wire: socket.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = wire.makefile("rb")
    _reply(reader)
    _say(wire, reader, b"EHLO client.example\r\n")
    if tls:
        _say(wire, reader, b"STARTTLS\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        wire = context.wrap_socket(wire)
        reader = wire.makefile("rb")
        _say(wire, reader, b"EHLO client.example\r\n")
    return wire, reader


def _reply(reader: Any) -> None:
    while (line := reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in (b"2", b"3"):
        raise RuntimeError(f"refused: {line!r}")


def _say(wire: socket.socket, reader: Any, data: bytes) -> None:
    wire.sendall(data)
    _reply(reader)


def send(
    port: int,
    messages: Sequence[tuple[int, str]],
    *,
    size: int = 5120,
    senders: int = 20,
    reuse: bool = True,
    tls: bool = False,
    gap: float = 0.0,
    rate: float = 0.0,
) -> dict[int, float]:
    """Send messages, each a number and a domain.

    @param gap: seconds that a sender rests after a message.
    @param rate: messages a second, of all senders together; 0 for as many as go.
    @return: when each got its 250, by its number.
    """
    moments: dict[int, float] = {}
    failures: list[Exception] = []
    filling = (b"x" * 78 + b"\r\n") * (size // 80)

    start = time.monotonic()

    def run(first: int) -> None:
        session: tuple[socket.socket, Any] | None = None
        try:
            for index in range(first, len(messages), senders):
                number, domain = messages[index]
                if rate:
                    time.sleep(max(0.0, start + index / rate - time.monotonic()))
                session = session or _open(port, tls)
                _say(*session, b"MAIL FROM:<sender@example.org>\r\n")
                _say(*session, f"RCPT TO:<user@{domain}>\r\n".encode())
                _say(*session, b"DATA\r\n")
                _say(*session, b"X-Number: %d\r\n\r\n%b.\r\n" % (number, filling))
                moments[number] = time.monotonic()
                if not reuse:
                    _say(*session, b"QUIT\r\n")
                    session[0].close()
                    session = None
                if gap:
                    time.sleep(gap)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return moments
