"""What is known of a client that is connected to a listener."""

from __future__ import annotations

from typing import Any

import attrs

from kumotwist.settings.types import HostPort
from kumotwist.tls.facts import TLSFacts

__all__ = ["ServerSession"]


@attrs.define(frozen=True)
class ServerSession:
    """The facts of a session; a new value replaces it after EHLO and after STARTTLS.

    @ivar session_id: 32 hexadecimal digits, see L{kumotwist.message.queued.new_id}.
    @ivar listener: the listener's name in the configuration.
    @ivar hostname: what the listener calls itself.
    @ivar peer: the client's address, an IPv4-mapped IPv6 address as IPv4; C{unix} and port 0 for a
        client of a Unix socket.
    @ivar local: the address that the client has connected to.
    @ivar may_relay: whether the client may send to any domain.
    @ivar ehlo_domain: what the client calls itself, safe to log; empty before EHLO.
    @ivar extended: whether it said EHLO, not HELO.
    @ivar user: the name that the client has logged in with, safe to log; empty before that.
    @ivar proxy: who said that C{peer} is the client, if that was a proxy or another server (PROXY
        protocol, XCLIENT).
    @ivar tls: the facts of the handshake; L{None} without TLS.
    """

    session_id: str
    listener: str
    hostname: str
    peer: HostPort
    local: HostPort
    may_relay: bool = False
    ehlo_domain: str = ""
    extended: bool = False
    user: str = ""
    proxy: HostPort | None = None
    tls: TLSFacts | None = None
    #: What others have written down of it for all of its messages, by names of theirs.
    forms: dict[str, Any] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def greeted(self, ehlo_domain: str, *, extended: bool) -> ServerSession:
        """The same session after EHLO or HELO."""
        return ServerSession(
            self.session_id, self.listener, self.hostname, self.peer, self.local, self.may_relay,
            ehlo_domain, extended, self.user, self.proxy, self.tls,
        )  # fmt: skip

    @property
    def protocol(self) -> str:
        """The keyword for a C{Received} header's C{with} (RFC 3848): SMTP, or ESMTP with S for
        TLS and A for a login."""
        if self.tls is not None:
            return "ESMTPSA" if self.user else "ESMTPS"
        if self.user:
            return "ESMTPA"
        return "ESMTP" if self.extended else "SMTP"

    @property
    def facts(self) -> dict[str, str]:
        """What is kept of the client with each of its messages; to be copied, not changed."""
        facts: dict[str, str] | None = self.forms.get("facts")
        if facts is None:
            facts = self.forms["facts"] = {
                "reception_protocol": self.protocol,
                "received_from": str(self.peer),
                "session_id": self.session_id,
            }
            if self.proxy is not None:
                facts["orig_received_from"] = str(self.proxy)
            if self.user:
                facts["authn_id"] = self.user
        return facts
