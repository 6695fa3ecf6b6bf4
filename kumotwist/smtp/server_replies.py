"""What a listener says of its own accord, besides what the wire machine does."""

from __future__ import annotations

from kumotwist.smtp.relay import UNIX
from kumotwist.wire.smtp.replies import Reply

SHUTTING_DOWN = Reply.of(421, "4.3.2", "shutting down, try again later")
TOO_MANY_CONNECTIONS = Reply.of(421, "4.3.2", "too many connections, try again later")
IDLE = Reply.of(421, "4.4.2", "idle for too long")
NOT_READY = Reply.of(421, "4.3.2", "not ready for mail, try again later")
#: Not said, as nothing can be; it goes into the record.
NO_HANDSHAKE = Reply.of(421, "4.4.2", "no TLS handshake in time (the client got no reply)")
TOO_LONG = Reply.of(421, "4.4.2", "this session has lasted too long")
SLOW_DATA = Reply.of(421, "4.4.2", "the message took too long to arrive")
SLOW_ANSWER = Reply.of(451, "4.4.5", "processing took too long, try again later")
BROKEN = Reply.of(451, "4.3.0", "local error in processing, try again later")
NO_ROOM = Reply.of(452, "4.3.1", "too much mail is just being received, try again later")
EARLY = Reply.of(421, "4.5.0", "the message was sent before the go-ahead (RFC 2920, 3.1)")


def greets(reply: Reply, host: str) -> Reply:
    """The answer to EHLO or HELO, in which the client reads where it comes from.

    @param reply: without that.
    @param host: the client's address, or L{UNIX}.
    """
    if host == UNIX:
        return reply
    literal = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
    return Reply(250, None, (f"{reply.lines[0]} greets {literal}", *reply.lines[1:]))
