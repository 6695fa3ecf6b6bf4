"""What a server says of its own accord (RFC 5321, 4.2 and 4.3.2; RFC 3463; RFC 5248)."""

from __future__ import annotations

import functools

from kumotwist.wire.smtp.replies import Reply, one_line

OK_SENDER = Reply.of(250, "2.1.0", "sender ok")
OK_RECIPIENT = Reply.of(250, "2.1.5", "recipient ok")
GO_AHEAD = Reply.of(354, None, "end the message with a line that has only a dot")
OK_MESSAGE = Reply.of(250, "2.0.0", "message accepted")
OK = Reply.of(250, "2.0.0", "ok")
NO_MORE_SENDERS = Reply.of(421, "4.5.3", "too many messages on this connection")
TOO_MANY_RECIPIENTS = Reply.of(452, "4.5.3", "too many recipients in this transaction")
TOO_MANY_ERRORS = Reply.of(421, "4.7.0", "too many bad commands")
TOO_IDLE = Reply.of(421, "4.7.0", "too many commands without a message")
ENDLESS = Reply.of(421, "4.7.0", "this line does not end")
LINE_TOO_LONG = Reply.of(500, "5.5.2", "line too long")
UNKNOWN = Reply.of(500, "5.5.1", "command not recognized")
NOT_HTTP = Reply.of(421, "4.7.0", "this is no web server")
NO_ARGUMENTS = Reply.of(501, "5.5.4", "this command has no arguments")
NO_HELLO = Reply.of(503, "5.5.1", "say EHLO first")
NESTED = Reply.of(503, "5.5.1", "a sender has already been given")
NO_SENDER = Reply.of(503, "5.5.1", "say MAIL first")
NO_RECIPIENTS = Reply.of(554, "5.5.1", "no valid recipients")
NO_TLS = Reply.of(502, "5.5.1", "STARTTLS is not offered")
HAVE_TLS = Reply.of(503, "5.5.1", "TLS is already in use")
TLS_NEEDED = Reply.of(530, "5.7.0", "say STARTTLS first")
START_TLS = Reply.of(220, "2.0.0", "go ahead with TLS")
NO_AUTH = Reply.of(502, "5.5.1", "AUTH is not offered")
AUTH_NEEDS_TLS = Reply.of(538, "5.7.11", "AUTH needs TLS: say STARTTLS first")
AUTH_NEEDED = Reply.of(530, "5.7.0", "log in first (AUTH)")
TLS_AND_AUTH_NEEDED = Reply.of(530, "5.7.0", "say STARTTLS and log in first (AUTH)")
AUTH_TWICE = Reply.of(503, "5.5.1", "you have logged in already")
AUTH_MECHANISM = Reply.of(504, "5.5.4", "this mechanism is not offered")
AUTH_SYNTAX = Reply.of(501, "5.5.4", "the syntax is AUTH MECHANISM [BASE64]")
AUTH_CANCELLED = Reply.of(501, "5.7.0", "cancelled")
AUTH_BASE64 = Reply.of(501, "5.5.2", "that is not base64")
AUTH_UNCHECKED = Reply.of(454, "4.7.0", "logins cannot be checked at the moment")
TOO_MANY_LOGINS = Reply.of(421, "4.7.0", "too many failed logins")
XCLIENT = Reply.of(220, None, "ready")
IN_MAIL = Reply.of(503, "5.5.1", "this is not possible within a mail transaction")
BINARY = Reply.of(503, "5.5.1", "a message with BODY=BINARYMIME comes in chunks: BDAT")
IN_CHUNKS = Reply.of(503, "5.5.1", "the message has begun: BDAT or RSET")
VRFY = Reply.of(252, "2.5.0", "send the mail, and it will be tried")
EXPN = Reply.of(502, "5.5.1", "there are no lists to expand here")
HELP = Reply.of(
    214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH (RFC 5321)"
)


#: Methods of RFC 9110, 9.3 and RFC 5789.
_HTTP = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))


def unknown(verb: str) -> Reply:
    """The answer to what is no command.

    Whoever speaks HTTP here is sent away: somebody makes a web client do it, and the mail that the
    request carries would follow as commands.
    """
    return NOT_HTTP if verb.upper() in _HTTP else UNKNOWN


#: Characters of a line's text: with codes and line end it stays below 512 octets.
_LONGEST = 480


def new_wire_form(reply: Reply) -> bytes:
    """The octets of a reply; whatever its text, it stays one reply of ASCII lines."""
    lines = reply.lines
    line = lines[0]
    if len(lines) == 1 and len(line) <= _LONGEST and line.isascii() and line.isprintable():
        return reply.to_bytes()
    lines = tuple(
        line
        if len(line) <= _LONGEST and line.isascii() and line.isprintable()
        else one_line(line, _LONGEST).encode("ascii", "replace").decode("ascii")
        for line in reply.lines
    )
    return (reply if lines == reply.lines else reply._replace(lines=lines)).to_bytes()


#: The same for replies that are said again and again.
wire_form = functools.lru_cache(maxsize=256)(new_wire_form)
