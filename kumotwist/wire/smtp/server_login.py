"""The AUTH dialogue of one session, as the server's machine sees it (RFC 4954)."""

from __future__ import annotations

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.smtp import server_replies as say
from kumotwist.wire.smtp.commands import CommandRefusedError
from kumotwist.wire.smtp.events import Auth, AuthResponse, BadCommand
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.sasl import SASLError, decode_base64
from kumotwist.wire.smtp.server_options import ServerOptions

__all__ = ["LoginDialogue"]


class LoginDialogue:
    """Reads AUTH and the lines that answer its challenges; no event shows what they say.

    It is made when AUTH is first said. From then on what looks like a mistyped command may be a
    password: a client that does not wait for the answer sends it whatever that is.

    @ivar authenticated: whether the client has logged in.
    @ivar in_progress: whether the next line answers a challenge.
    """

    __slots__ = ("_failures", "_options", "authenticated", "in_progress")

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._failures = 0
        self.authenticated = False
        self.in_progress = False

    def refusal(self, *, greeted: bool, tls: bool, in_mail: bool) -> Reply | None:
        """Why nobody can log in as things are (RFC 4954, 4)."""
        if not self._options.auth:
            return say.NO_AUTH
        if not greeted:
            return say.NO_HELLO
        if not self._options.offers_auth(tls=tls):
            return say.AUTH_NEEDS_TLS
        if self.authenticated:
            return say.AUTH_TWICE
        return say.IN_MAIL if in_mail else None

    def read_command(self, argument: str) -> Auth | BadCommand:
        """Read the arguments of AUTH.

        @raise CommandRefusedError: if they are not what they should be.
        """
        if self._failures >= self._options.max_failed_logins:
            return BadCommand(say.TOO_MANY_LOGINS, "AUTH")
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if not mechanism:
            raise CommandRefusedError(say.AUTH_SYNTAX)
        if mechanism not in self._options.auth:
            raise CommandRefusedError(say.AUTH_MECHANISM)
        data: bytes | None = None
        if initial:
            try:
                data = b"" if initial == "=" else decode_base64(initial.encode())
            except SASLError:
                raise CommandRefusedError(say.AUTH_BASE64) from None
        return Auth(mechanism, data, say.AUTH_UNCHECKED, f"AUTH {mechanism}")

    def read_response(self, line: bytes) -> AuthResponse:
        """Read an answer to a challenge.

        @raise CommandRefusedError: if the client gives up, or leaves the syntax; the dialogue is
            over then.
        """
        self.in_progress = False
        if line == b"*":
            raise CommandRefusedError(say.AUTH_CANCELLED)
        try:
            return AuthResponse(decode_base64(line), say.AUTH_UNCHECKED, "AUTH")
        except SASLError:
            raise CommandRefusedError(say.AUTH_BASE64) from None

    def settle(self, reply: Reply) -> None:
        """Note what L{Auth} or L{AuthResponse} was answered.

        @raise LocalProtocolError: if a positive reply is none of AUTH's.
        """
        if reply.is_positive and reply.code not in (334, 235):
            raise LocalProtocolError(f"{reply.code} does not answer AUTH")
        self.in_progress = reply.code == 334
        self.authenticated = reply.code == 235
        self._failures += reply.is_permanent
