"""A mail host that follows a script: what it says, and when it says nothing, hangs up or lies.

It shares no code with the product: what it says is written out as octets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

__all__ = ["CLOSE", "DEAF", "HANG", "RESET", "TLS", "Drip", "Pause", "ScriptedHost", "Turn"]


@attrs.define(frozen=True)
class Drip:
    """Say this octet by octet, with so many seconds between them."""

    data: bytes
    seconds: float


@attrs.define(frozen=True)
class Pause:
    """Go on after so many seconds."""

    seconds: float


@attrs.define(frozen=True)
class _Word:
    name: str


#: Close the connection.
CLOSE = _Word("close")
#: Reset the connection.
RESET = _Word("reset")
#: Say nothing more, whatever comes.
HANG = _Word("hang")
#: Do not even read any more.
DEAF = _Word("deaf")
#: Start TLS.
TLS = _Word("tls")

Turn = tuple["bytes | Drip | Pause | _Word", ...]

#: What a host says that is none of the hostile ones.
GOOD: Mapping[str, Turn] = {
    "banner": (b"220 mx.example.test ESMTP\r\n",),
    "HELO": (b"250 mx.example.test\r\n",),
    "MAIL": (b"250 2.1.0 ok\r\n",),
    "RCPT": (b"250 2.1.5 ok\r\n",),
    "DATA": (b"354 go on\r\n",),
    "BDAT": (b"250 2.0.0 taken\r\n",),
    "BODY": (b"250 2.0.0 taken\r\n",),
    "RSET": (b"250 2.0.0 ok\r\n",),
    "NOOP": (b"250 2.0.0 ok\r\n",),
    "STARTTLS": (b"220 2.0.0 go on\r\n", TLS),
    "AUTH": (b"235 2.7.0 welcome\r\n",),
    "QUIT": (b"221 2.0.0 bye\r\n", CLOSE),
}


class ScriptedHost(ServerFactory):
    """A host on a port of its own.

    @ivar turns: for each verb what is said to its first, second, … occurrence in all connections;
        the last turn is repeated. Besides verbs there are C{banner}, C{BODY} (the final dot),
        C{in-body} (the first octets of a message), C{in-chunk} (BDAT, before its octets) and
        C{REPLY} (a line while AUTH goes on).
    @ivar messages: how many messages came to their end, taken or not.
    @ivar connections: those that are open.
    """

    noisy = False

    def __init__(
        self,
        turns: Mapping[str, Turn | list[Turn]],
        offers: tuple[str, ...],
        tls: CertificateOptions | None,
        *,
        forgetful: bool = False,
        tls_offers: tuple[str, ...] | None = None,
    ) -> None:
        self._turns = {
            verb: list(turn) if isinstance(turn, list) else [turn] for verb, turn in turns.items()
        }
        self._offers = offers
        self._tls_offers = offers if tls_offers is None else tls_offers
        self.tls = tls
        self.forgetful = forgetful
        self.messages = 0
        self.connections: set[_HostProtocol] = set()

    def buildProtocol(self, addr: object) -> Protocol:
        """One connection."""
        return _HostProtocol(self)

    def turn(self, verb: str, secure: bool) -> Turn | None:
        """What to say to a verb now."""
        turns = self._turns.get(verb)
        if turns is None and secure:
            turns = self._turns.get(f"{verb} over TLS")
        if turns is not None:
            return turns.pop(0) if len(turns) > 1 else turns[0]
        if verb in ("EHLO", "LHLO"):
            offers = self._tls_offers if secure else self._offers
            lines = ["mx.example.test", *(o for o in offers if not (secure and o == "STARTTLS"))]
            marked = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
            return (("\r\n".join(marked) + "\r\n").encode(),)
        return GOOD.get(verb)


class _HostProtocol(Protocol):
    """The host's side of a session."""

    transport: Any

    def __init__(self, host: ScriptedHost) -> None:
        self._host = host
        self._received = b""
        self._tail = b""
        self._reading = "lines"
        self._octets_left = 0
        self._gone = False
        self._timer: Any = None
        self._silent = False
        self._secure = False
        self._recipients = 0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._host.connections.add(self)
        self._say("banner")

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._gone = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._host.connections.discard(self)

    # -- what it hears -----------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._silent:
            return
        if self._reading == "body":
            self._body(data)
            return
        self._received += data
        while not self._silent and self._reading == "lines" and b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            if self._host.forgetful:  # reads one command of each piece, and forgets the rest
                self._received = b""
            self._line(line.rstrip(b"\r"))
        if self._reading == "chunk":
            self._chunk()

    def _line(self, line: bytes) -> None:
        verb = line.split(b" ")[0].split(b":")[0].decode("ascii", "replace").upper()
        if self._reading == "login":
            verb = "REPLY"
        if verb == "BDAT":
            self._octets_left = int(line.split(b" ")[1])
            self._reading = "chunk"
            self._act(self._host.turn("in-chunk", self._secure) or ())
            return
        turn = self._host.turn(verb, self._secure)
        if turn is None:
            turn = (b"500 5.5.1 what?\r\n",)
        if verb == "DATA" and any(isinstance(act, bytes) and act[:3] == b"354" for act in turn):
            self._reading, self._tail = "body", b"\r\n"
        self._act(turn)
        if self._reading == "body" and self._received:
            data, self._received = self._received, b""
            self._body(data)

    def _chunk(self) -> None:
        taken = min(len(self._received), self._octets_left)
        self._received = self._received[taken:]
        self._octets_left -= taken
        if not self._octets_left:
            self._reading = "lines"
            self._host.messages += 1
            self._say("BDAT")
            self.dataReceived(b"")

    def _body(self, data: bytes) -> None:
        in_body = self._host.turn("in-body", self._secure)
        if in_body is not None:
            self._host._turns.pop("in-body")
            self._act(in_body)
        data = self._tail + data
        end = data.find(b"\r\n.\r\n")
        if end < 0:
            self._tail = data[-4:]
            return
        self._reading = "lines"
        self._host.messages += 1
        self._say("BODY")
        if data[end + 5 :]:
            self.dataReceived(data[end + 5 :])

    # -- what it says ------------------------------------------------------------------------------

    def _say(self, verb: str) -> None:
        turn = self._host.turn(verb, self._secure)
        assert turn is not None, verb
        self._act(turn)

    def _act(self, turn: Turn) -> None:
        for number, act in enumerate(turn):
            rest = turn[number + 1 :]
            if self._gone:
                return
            if isinstance(act, bytes):
                self.transport.write(act)
            elif isinstance(act, Pause):
                self._timer = global_reactor.callLater(act.seconds, self._act, rest)
                return
            elif isinstance(act, Drip):
                if act.data:
                    self.transport.write(act.data[:1])
                    again = Drip(act.data[1:], act.seconds)
                    self._timer = global_reactor.callLater(act.seconds, self._act, (again, *rest))
                    return
            else:
                self._do(act)

    def _do(self, word: _Word) -> None:
        self._silent = word is not TLS
        if word is CLOSE:
            self.transport.loseConnection()
        elif word is RESET:
            self.transport.abortConnection()
        elif word is DEAF:
            self.transport.pauseProducing()
        elif word is TLS:
            self._received = b""
            self._secure = True
            self.transport.startTLS(self._host.tls)
