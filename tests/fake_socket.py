"""A blocking socket whose answers are written down, for programs on smtplib and http.client."""

from __future__ import annotations

import io

__all__ = ["FakeSocket"]


class _Answers(io.RawIOBase):
    """What is read from the socket: everything that was written down, then the end."""

    def __init__(self, data: bytes, then: type[BaseException] | None) -> None:
        self._data = data
        self._then = then

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Give the next octets; nothing, or the exception, at the end."""
        if not self._data and self._then is not None:
            raise self._then
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


class FakeSocket:
    """A connected socket.

    @param answers: everything that the other side will say.
    @param then: what reading beyond that raises; by default the other side has closed.
    @ivar sent: what it was told.
    @ivar timeouts: the timeouts that were set, in order.
    """

    def __init__(self, answers: bytes, then: type[BaseException] | None = None) -> None:
        self._answers = _Answers(answers, then)
        self.sent = b""
        self.timeouts: list[float] = []
        self.closed = False

    def makefile(self, mode: str, *_args: object, **_facts: object) -> io.BufferedReader:
        """The reading side."""
        assert mode == "rb"
        return io.BufferedReader(self._answers)

    def sendall(self, data: bytes) -> None:
        """Hear something."""
        self.sent += data

    def settimeout(self, seconds: float) -> None:
        """Take note of a timeout."""
        self.timeouts.append(seconds)

    def setsockopt(self, *_args: object) -> None:
        """Options make no difference here."""

    def close(self) -> None:
        """Be closed."""
        self.closed = True
