"""A small server for tests of deliveries: answers by the word, and remembers what it was told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.protocol import Factory, Protocol

__all__ = ["Talker"]


class Talker(Factory):
    """Answers commands by how they begin; whatever is not named is accepted.

    @param extensions: what EHLO (or LHLO) offers.
    @param answers: replies without line end by the beginning of a command; the longest one that
        fits counts. C{"."} stands for the end of a message, C{""} for the greeting. A list is
        used up one by one, its last item stays. C{None} closes the connection.
    @ivar said: every line of every connection, but those of messages.
    @ivar messages: what came behind DATA, as it stood on the wire, and what came by BDAT.
    @ivar connections: how many there were.
    """

    noisy = False

    def __init__(self, *extensions: str, **answers: Any) -> None:
        self.extensions = extensions
        self.answers: dict[str, Any] = {}
        self.said: list[str] = []
        self.messages: list[bytes] = []
        self.connections = 0
        self.tell(answers.pop("answers", {}))

    def tell(self, answers: Mapping[str, Any]) -> Talker:
        """Answer these differently from now on."""
        for key, reply in answers.items():
            self.answers[key] = list(reply) if isinstance(reply, list | tuple) else [reply]
        return self

    def buildProtocol(self, addr: Any) -> Protocol:
        """One connection."""
        self.connections += 1
        return _Talk(self)

    def answer(self, line: str) -> str | None:
        """What is said to a command."""
        fitting = [key for key in self.answers if line.startswith(key) and (key or not line)]
        if fitting:
            replies = self.answers[max(fitting, key=len)]
            reply: str | None = replies.pop(0) if len(replies) > 1 else replies[0]
            return reply
        if not line:
            return "220 talker ESMTP"
        if line.startswith(("EHLO", "LHLO")):
            return "\r\n".join(["250-talker", *(f"250-{each}" for each in self.extensions), "250 "])
        if line.startswith("DATA"):
            return "354 go"
        return "221 bye" if line.startswith("QUIT") else "250 ok"


class _Talk(Protocol):
    """One connection."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker
        self._data = b""
        self._in_body = False
        self._octets = -1
        self._chunks = b""
        self._last = False

    def connectionMade(self) -> None:
        """Greet."""
        self._reply("")

    def dataReceived(self, data: bytes) -> None:
        """Take lines, and messages."""
        self._data += data
        while self._step():
            pass

    def _step(self) -> bool:
        if self._in_body:
            return self._body()
        if self._octets >= 0:
            return self._chunk()
        line, end, rest = self._data.partition(b"\r\n")
        if not end:
            return False
        self._data = rest
        text = line.decode("utf-8")
        self._talker.said.append(text)
        if text.startswith("BDAT"):
            words = text.split()
            self._octets, self._last = int(words[1]), words[-1] == "LAST"
            return True
        reply = self._reply(text)
        self._in_body = text == "DATA" and reply is not None and reply.startswith("354")
        return reply is not None

    def _body(self) -> bool:
        if self._data.startswith(b".\r\n"):
            message, rest = b"", self._data[3:]
        else:
            message, end, rest = self._data.partition(b"\r\n.\r\n")
            if not end:
                return False
            message += b"\r\n"
        self._data, self._in_body = rest, False
        self._talker.messages.append(message)
        return self._reply(".") is not None

    def _chunk(self) -> bool:
        if len(self._data) < self._octets:
            return False
        self._chunks += self._data[: self._octets]
        self._data, self._octets = self._data[self._octets :], -1
        if self._last:
            self._talker.messages.append(self._chunks)
            self._chunks = b""
        return self._reply("." if self._last else "BDAT") is not None

    def _reply(self, line: str) -> str | None:
        reply = self._talker.answer(line)
        assert self.transport is not None
        if reply is None:
            self.transport.loseConnection()
        else:
            self.transport.write(reply.encode() + b"\r\n")
        return reply
