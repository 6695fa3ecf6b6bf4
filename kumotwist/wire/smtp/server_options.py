"""What the sessions of one listener have in common, as far as the wire machine needs to know it."""

from __future__ import annotations

import functools

import attrs

from kumotwist.wire.smtp import server_replies as say
from kumotwist.wire.smtp.body import LineEndings
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.xclient import XCLIENT_ATTRIBUTES

__all__ = ["ServerOptions"]


@attrs.define(frozen=True)
class ServerOptions:
    """What the sessions of one listener have in common.

    @ivar hostname: the server's name in its greeting and in its answer to EHLO.
    @ivar banner: what follows the name in the greeting.
    @ivar max_message_size: octets; advertised with SIZE (RFC 1870).
    @ivar max_recipients: accepted recipients of one transaction.
    @ivar max_messages: transactions of one connection.
    @ivar line_endings: what happens to lone CR and LF, see L{BodyReader}.
    @ivar line_length_limit: octets of a line of the message without its CRLF; 0 for any number.
    @ivar max_bad_commands: what is no command, or badly formed, before the client is sent away;
        a message that was accepted begins the count anew.
    @ivar auth: the SASL mechanisms that are offered (RFC 4954).
    @ivar auth_without_tls: whether they are offered in the clear, too.
    @ivar require_auth: whether MAIL needs a login.
    @ivar max_failed_logins: after so many the next attempt ends the session.
    @ivar xclient: whether XCLIENT is offered.
    @ivar require_tls: whether MAIL needs TLS (RFC 3207, 4).
    @ivar dsn: whether DSN is offered (RFC 3461): somebody sees to the reports. Its parameters are
        read in any case.
    @ivar requiretls: whether REQUIRETLS is offered, over TLS (RFC 8689).
    @ivar binarymime: whether BINARYMIME is offered (RFC 3030): somebody can convert such messages.
    @ivar max_idle_commands: all other commands that do not bring a message nearer, likewise.
    """

    hostname: str
    banner: str = "kumotwist"
    max_message_size: int = 20 * 1024 * 1024
    max_recipients: int = 1024
    max_messages: int = 10000
    line_endings: LineEndings = "Deny"
    line_length_limit: int = 0
    max_bad_commands: int = 25
    max_idle_commands: int = 5000
    auth: tuple[str, ...] = ()
    auth_without_tls: bool = False
    require_auth: bool = False
    max_failed_logins: int = 3
    xclient: bool = False
    require_tls: bool = False
    dsn: bool = False
    requiretls: bool = False
    binarymime: bool = False
    # What has been said after EHLO, by STARTTLS offered and TLS in use.
    _capabilities: dict[tuple[bool, bool], tuple[str, ...]] = attrs.field(
        factory=dict, init=False, repr=False, eq=False
    )

    def greeting(self) -> Reply:
        """The opening of a session (RFC 5321, 3.1)."""
        return Reply.of(220, None, f"{self.hostname} {self.banner}".strip())

    @functools.cached_property
    def opening(self) -> bytes:
        """The octets of the greeting."""
        return say.wire_form(self.greeting())

    @functools.cached_property
    def farewell(self) -> Reply:
        """The answer to QUIT."""
        return Reply.of(221, "2.0.0", f"{self.hostname} goodbye")

    def offers_auth(self, *, tls: bool) -> bool:
        """Whether clients can log in as things are."""
        return bool(self.auth) and (tls or self.auth_without_tls)

    def login_needed(self, *, tls: bool) -> Reply:
        """That somebody has to log in first, and what for that (RFC 4954, 6)."""
        return say.AUTH_NEEDED if self.offers_auth(tls=tls) else say.TLS_AND_AUTH_NEEDED

    def capabilities(self, *, starttls: bool, tls: bool = False) -> tuple[str, ...]:
        """The lines of the answer to EHLO behind the first (RFC 5321, 4.1.1.1; RFC 9422)."""
        known = self._capabilities.get((starttls, tls))
        if known is None:
            known = self._capabilities[starttls, tls] = self._capable(starttls, tls)
        return known

    def _capable(self, starttls: bool, tls: bool) -> tuple[str, ...]:
        lines: tuple[str, ...] = (
            "PIPELINING",
            f"SIZE {self.max_message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            *(("BINARYMIME",) if self.binarymime else ()),
            "ENHANCEDSTATUSCODES",
            *(("DSN",) if self.dsn else ()),
            f"LIMITS MAILMAX={self.max_messages} RCPTMAX={self.max_recipients}",
        )
        if tls and self.requiretls:
            lines = (*lines, "REQUIRETLS")
        if self.offers_auth(tls=tls):
            lines = (*lines, f"AUTH {' '.join(self.auth)}")
        if self.xclient:
            lines = (*lines, f"XCLIENT {' '.join(XCLIENT_ATTRIBUTES)}")
        return (*lines, "STARTTLS") if starttls else lines
