"""Numbered messages, handed in over several pipelined connections until somebody dies."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from itertools import count

__all__ = ["Injector", "content"]

_PER_BURST = 4
_LARGE = 40_000


def content(number: int) -> bytes:
    """The message of a number; every eighth is large enough for a segment file."""
    lines = _LARGE // 62 if number % 8 == 0 else 3
    line = f"{number:08d} ".encode() * 6 + b"end\r\n"
    return f"Subject: {number}\r\n\r\n".encode() + line * lines


class Injector:
    """Keeps handing messages in, in threads of its own.

    @ivar accepted: the numbers that got a 250 after their data.
    @ivar refused: replies to MAIL, RCPT, DATA or data that were not positive, by their code.
    """

    def __init__(self, port: int, connections: int, pause: float = 0.0) -> None:
        """
        @param port: where the node listens.
        @param connections: how many at once.
        @param pause: seconds between two bursts of a connection.
        """
        self.port = port
        self.accepted: set[int] = set()
        self.refused: dict[int, int] = {}
        self._pause = pause
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Hand nothing more in; returns when all threads have ended."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, EOFError, ValueError):
                self._converse()
            time.sleep(0.02)

    def _converse(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            replies = _Replies(connection)
            if replies.next() != 220:
                return
            connection.sendall(b"EHLO client.example.org\r\n")
            replies.next()
            for _ in range(random.randrange(1, 8)):
                if self._stopped.is_set():
                    return
                self._burst(connection, replies)
                time.sleep(self._pause)

    def _burst(self, connection: socket.socket, replies: _Replies) -> None:
        """Some messages; the next one's envelope goes with the data of the one before."""
        with self._lock:
            numbers = [next(self._numbers) for _ in range(_PER_BURST)]
        connection.sendall(_envelope(numbers[0]))
        for number, following in zip(numbers, [*numbers[1:], None], strict=True):
            codes = [replies.next() for _ in range(3)]
            if codes[2] != 354:
                self._refuse(max(codes))
                raise EOFError
            data = content(number) + b".\r\n"
            connection.sendall(data if following is None else data + _envelope(following))
            code = replies.next()
            if code == 250:
                # Sets are safe to add to from several threads.
                self.accepted.add(number)
            else:
                self._refuse(code)

    def _refuse(self, code: int) -> None:
        with self._lock:
            self.refused[code] = self.refused.get(code, 0) + 1


class _Replies:
    """The codes of replies, as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def next(self) -> int:
        """The next one.

        @raise EOFError: the other side has closed.
        """
        while True:
            line, end, rest = self._received.partition(b"\r\n")
            if end:
                self._received = rest
                if line[3:4] != b"-":
                    return int(line[:3])
                continue
            chunk = self._connection.recv(65536)
            if not chunk:
                raise EOFError
            self._received += chunk


def _envelope(number: int) -> bytes:
    return (
        f"MAIL FROM:<sender@example.org>\r\nRCPT TO:<m{number}@example.com>\r\nDATA\r\n"
    ).encode()
