"""Short sessions through a SOCKS5 server, as cheap as Python can make them.

Client and destination are one process with one C{epoll}, so that what a server sends finds somebody
awake, wakes nobody, and as much as possible of the machine is left to the server. A session is
what an MTA does, one packet after another: connect, greet, BIND if asked for, CONNECT; then the
banner, and the end behind it in the same segment. The destination's end closes first, everywhere.

C{socks5=False} does the same without a server: what is left is what the load itself takes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import socket
import struct
import time
from typing import Any

from attrs import define

__all__ = ["LoadFigures", "connection_rate"]

_fork = multiprocessing.get_context("fork")

_BANNER = b"220 mx.example ESMTP\r\n"
_GREETING, _METHOD = b"\x05\x01\x00", b"\x05\x00"
_BIND = b"\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x00"
_CONNECT = b"\x05\x01\x00\x01\x7f\x00\x00\x01"
_DONE = b"\x05\x00"
_REPLY = 10
_ENDED = select.EPOLLRDHUP


@define(frozen=True)
class LoadFigures:
    """What a run of the load was.

    @ivar seconds: how long it took.
    @ivar made: how many sessions succeeded.
    @ivar failed: how many did not.
    @ivar cpu: seconds of CPU that client and destination took.
    """

    seconds: float
    made: int
    failed: int
    cpu: float


class _Client:
    """One session at a time, and the next one when it has ended.

    @param load: watches its socket.
    """

    __slots__ = ("_arrived", "_load", "handle", "step")

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._arrived = b""
        self.begin()

    def begin(self) -> None:
        """Connect and say the first words."""
        load = self._load
        self.handle = handle = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0)
        handle.connect(load.address)
        self._arrived = b""
        self.step = 0
        if load.words:
            handle.send(load.words[0])
        load.clients[handle.fileno()] = self
        load.epoll.register(handle.fileno(), select.EPOLLIN | _ENDED)

    def ready(self, events: int) -> None:
        """Something has arrived: say the next words, or begin anew."""
        load = self._load
        try:
            arrived = self._arrived = self._arrived + self.handle.recv(4096)
        except OSError:
            arrived, events = b"", _ENDED
        if self.step < len(load.answers):
            begin, length = load.answers[self.step]
            if len(arrived) >= length and arrived.startswith(begin):
                self._arrived = arrived[length:]
                self.step += 1
                if self.step < len(load.words):
                    self.handle.send(load.words[self.step])
        if events & _ENDED or not arrived:
            good = self._arrived == _BANNER and self.step == len(load.answers)
            load.count(good)
            number = self.handle.fileno()
            self.handle.close()
            del load.clients[number]
            if not load.over:
                self.begin()


class _Load:
    """All clients, and the destination.

    @param port: the SOCKS5 server's, or L{None} to go to the destination directly.
    @param bind: whether a source is chosen first, 127.0.0.2, as MTAs do with KumoProxy.
    """

    def __init__(self, port: int | None, bind: bool) -> None:
        self.epoll = select.epoll()
        self.clients: dict[int, _Client] = {}
        self.over = False
        self.made = self.failed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        # Accepted sockets inherit it: the banner leaves together with the end.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self._listener.setblocking(False)
        target = self._listener.getsockname()[1]
        self.address = ("127.0.0.1", port or target)
        self.words: list[bytes] = []
        self.answers: list[tuple[bytes, int]] = []
        if port is not None:
            connect = _CONNECT + struct.pack("!H", target)
            self.words = [_GREETING, *([_BIND] if bind else []), connect]
            requests = [(_DONE, _REPLY)] * (len(self.words) - 1)
            self.answers = [(_METHOD, len(_METHOD)), *requests]

    def count(self, good: bool) -> None:
        """A session has ended."""
        if good:
            self.made += 1
        else:
            self.failed += 1

    def run(self, seconds: float, clients: int) -> LoadFigures:
        """Make sessions, so many at once, for so long; those that are under way are finished."""
        poll, known = self.epoll.poll, self.clients
        listening = self._listener.fileno()
        self.epoll.register(listening, select.EPOLLIN)
        begun, cpu = time.monotonic(), time.process_time()
        end = begun + seconds
        for _ in range(clients):
            _Client(self)
        while known and time.monotonic() < end + 10:
            found = poll(1)
            for number, events in found:
                if number == listening:
                    self._welcome()
                else:
                    known[number].ready(events)
            self.over = time.monotonic() > end
        self.failed += len(known)
        return LoadFigures(
            time.monotonic() - begun, self.made, self.failed, time.process_time() - cpu
        )

    def _welcome(self) -> None:
        """Say the banner to whoever has come, and close."""
        accept: Any = self._listener._accept  # type: ignore[attr-defined]
        with contextlib.suppress(BlockingIOError):
            while True:
                number, _ = accept()
                os.write(number, _BANNER)
                os.close(number)


def _work(results: Any, port: int | None, seconds: float, clients: int, bind: bool) -> None:
    results.put(_Load(port, bind).run(seconds, clients))


def connection_rate(
    port: int | None, seconds: float, clients: int, bind: bool = False
) -> LoadFigures:
    """Make sessions as fast as the server can.

    @param port: the SOCKS5 server's; L{None} for none at all.
    @param seconds: for so long.
    @param clients: so many at once.
    @param bind: whether a source is chosen first.
    """
    results = _fork.SimpleQueue()
    child = _fork.Process(target=_work, args=(results, port, seconds, clients, bind), daemon=True)
    child.start()
    figures: LoadFigures = results.get()
    child.join()
    return figures
