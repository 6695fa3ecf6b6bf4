"""What can be configured about ESMTP listeners and sinks; the names are KumoMTA's where it has
the thing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Literal, cast

import attrs

from kumotwist.logins import CHECKER
from kumotwist.settings import Problem, SettingType, declared, setting
from kumotwist.settings.layers import Rule
from kumotwist.settings.types import (
    BOOLEAN,
    HOST_NAME,
    NETWORKS,
    READABLE_FILE,
    SERVER_ENDPOINT,
    SIZE,
    TEXT,
    IPAddress,
    IPNetwork,
    choice,
    duration,
    integer,
    list_of,
    parse_domain,
)
from kumotwist.wire.smtp.body import LineEndings
from kumotwist.wire.smtp.replies import EnhancedCode, Reply
from kumotwist.wire.smtp.server_options import ServerOptions
from kumotwist.wire.smtp.syntax import CommandSyntaxError, domain_of, parse_mailbox

__all__ = [
    "DOMAIN_PATTERN",
    "MAILBOX",
    "REPLY",
    "ClientSettings",
    "ListenerSettings",
    "PeerPattern",
    "SinkSettings",
]

_LOOPBACK: tuple[IPNetwork, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)


def _parse_domain_pattern(text: str) -> str:
    word = text.strip()
    if word == "*":
        return word
    if word.startswith("*."):
        return "*." + parse_domain(word[2:])
    return parse_domain(word)


#: A domain, C{*.domain} for all below it, or C{*} for every domain.
DOMAIN_PATTERN: SettingType[str] = SettingType("domain pattern", _parse_domain_pattern)


def _parse_mailbox(text: str) -> str:
    try:
        mailbox = parse_mailbox(text.strip())
        domain_of(str(mailbox))
    except CommandSyntaxError as error:
        raise ValueError(f"{text!r}: {error} (such as postmaster@example.com)") from None
    if not str(mailbox).isascii():
        raise ValueError(f"{text!r} is not in ASCII (such as postmaster@example.com)")
    return str(mailbox)


#: An address that everybody can send to: ASCII, with a domain.
MAILBOX: SettingType[str] = SettingType("address", _parse_mailbox)


def _parse_reply(text: str) -> Reply:
    wrong = f"{text!r} is not a refusal (such as 451 4.3.2 try again later)"
    code, _, rest = text.strip().partition(" ")
    if re.fullmatch("[45][0-9]{2}", code) is None or not text.isprintable():
        raise ValueError(wrong)
    first, _, words = rest.partition(" ")
    try:
        enhanced = EnhancedCode.parse(first)
    except ValueError:
        return Reply(int(code), None, (rest,))
    if enhanced.klass != int(code[0]):
        raise ValueError(f"{text!r}: the codes {code} and {enhanced} contradict each other")
    return Reply(int(code), enhanced, (words,))


#: A 4xx or 5xx reply as it stands on the wire.
REPLY: SettingType[Reply] = SettingType("refusal", _parse_reply)

_TLS = choice("starttls", "implicit", "none")
_LINE_ENDINGS = choice("Deny", "Allow", "Fix")


def _pair_of_files(certificate: str | None, key: str | None) -> Iterable[Problem]:
    """A certificate needs its key, and the other way round."""
    if certificate is not None and key is None:
        yield Problem(("tls_certificate", "tls_private_key"), "tls_private_key is missing")
    if key is not None and certificate is None:
        yield Problem(("tls_private_key", "tls_certificate"), "tls_certificate is missing")


@attrs.define(frozen=True)
class ClientSettings:
    """What a listener lets its clients do; it may differ from network to network."""

    hostname: str | None = setting(
        HOST_NAME,
        "The name in the greeting, in the answer to EHLO and in Received fields.",
        default=None,
        default_doc="the node's hostname",
    )
    banner: str = setting(TEXT, "What follows the name in the greeting.", default="kumotwist")
    relay_hosts: tuple[IPNetwork, ...] = setting(
        NETWORKS, "Clients that may send to any domain.", default=_LOOPBACK
    )
    relay_to: tuple[str, ...] = setting(
        list_of(DOMAIN_PATTERN),
        "Domains that mail is accepted for from anybody; `*.DOMAIN` stands for all domains below "
        "DOMAIN, `*` for every domain.",
        default=(),
    )
    max_message_size: int = setting(
        SIZE, "The largest message that is taken; advertised with SIZE.", default=20 * 1024 * 1024
    )
    max_recipients_per_message: int = setting(
        integer(minimum=1), "Recipients of one transaction; more get a 452.", default=1024
    )
    max_messages_per_connection: int = setting(
        integer(minimum=1), "Messages of one connection; the next MAIL gets a 421.", default=10000
    )
    client_timeout: float = setting(
        duration(1),
        "How long a client may be silent, and how long one command may take to arrive.",
        default=60.0,
    )
    data_timeout: float = setting(
        duration(1), "How long one message may take to arrive.", default=3600.0
    )
    session_timeout: float = setting(
        duration(1),
        "How long a connection may last; after that the next command gets a 421.",
        default=86400.0,
    )
    data_processing_timeout: float = setting(
        duration(1),
        "How long a message may take to be stored; after that the client gets a 451 and the "
        "message is not kept.",
        default=300.0,
    )
    allow_auth_without_tls: bool = setting(
        BOOLEAN, "Whether clients may log in without TLS.", default=False
    )
    require_auth: bool = setting(
        BOOLEAN, "Whether MAIL needs a login, also of clients in `relay_hosts`.", default=False
    )
    require_proxy_protocol: bool = setting(
        BOOLEAN,
        "Whether a connection must begin with HAProxy's PROXY header (version 1 or 2); one from "
        "outside `trusted_proxies`, where these are given, is dropped.",
        default=False,
    )
    allow_xclient: bool = setting(
        BOOLEAN,
        "Whether XCLIENT is believed: NAME, ADDR, PORT, HELO, DESTADDR and DESTPORT are taken, of "
        "which NAME and HELO are ignored.",
        default=False,
    )
    invalid_line_endings: LineEndings = setting(
        cast("SettingType[LineEndings]", _LINE_ENDINGS),
        "What happens to a message with a lone CR or LF: it is refused (`Deny`); each of them "
        "becomes a CRLF when it is sent on (`Allow`), or before it is spooled (`Fix`). None of "
        "them ever ends a message.",
        default="Deny",
    )
    line_length_hard_limit: int = setting(
        integer(),
        "Octets that a line of a message may have; longer ones are refused. 0: any number "
        "(RFC 5321, 4.5.3.1, wants receivers to impose no limit).",
        default=0,
    )


@attrs.define(frozen=True)
class PeerPattern:
    """C{NAME peer NETWORK}: the clients of a listener that connect from a network.

    @ivar listener: the listener's name.
    """

    listener: str
    network: IPNetwork

    @classmethod
    def parse(cls, text: str) -> PeerPattern:
        """Read a pattern.

        @raise ValueError: if it is none.
        """
        match = re.fullmatch(r"(\S+)\s+peer\s+(\S+)", text)
        networks = NETWORKS.parse(match.group(2)) if match else ()
        if match is None or len(networks) != 1:
            raise ValueError(f"{text!r} is not NAME peer NETWORK (such as main peer 10.0.0.0/8)")
        return cls(match.group(1), networks[0])

    def __str__(self) -> str:
        return f"{self.listener} peer {self.network}"


#: The keys of C{[listener:NAME]} that can change while it listens: what is looked up for each
#: client.
LIVE_KEYS = (frozenset(declared(ClientSettings)) | {"max_connections"}) - {"require_proxy_protocol"}


@attrs.define(frozen=True)
class ListenerSettings(ClientSettings):
    """An ESMTP listener.

    One with C{require_auth} serves submission (RFC 6409, 4.3).

    @ivar name: the section's name.
    @ivar dsn: whether reports are made, and so offered (RFC 3461).
    @ivar peers: what holds for some clients instead, the largest networks first.
    """

    name: str = attrs.field(default="", kw_only=True)
    dsn: bool = attrs.field(default=True, kw_only=True)
    peers: tuple[Rule[IPNetwork], ...] = attrs.field(default=(), kw_only=True)
    listen: str = setting(
        SERVER_ENDPOINT,
        "Where it listens: ADDR:PORT or a Twisted server endpoint string.",
        default="tcp:2525:interface=127.0.0.1",
    )
    max_connections: int = setting(
        integer(minimum=1), "Connections at one time; more get a 421.", default=32768
    )
    max_octets_in_reception: int = setting(
        SIZE,
        "Memory for messages that are just being received, over all connections of this listener; "
        "what does not fit gets a 452.",
        default=512 * 1024 * 1024,
    )
    tls: Literal["starttls", "implicit", "none"] = setting(
        cast("SettingType[Literal['starttls', 'implicit', 'none']]", _TLS),
        "Whether clients may begin TLS with STARTTLS, must begin with it at once, or cannot.",
        default="starttls",
    )
    tls_certificate: str | None = setting(
        READABLE_FILE,
        "The certificate (PEM), followed by its chain.",
        default=None,
        default_doc="a self-signed one, made in the state directory",
    )
    tls_private_key: str | None = setting(
        READABLE_FILE, "The certificate's private key (PEM).", default=None
    )
    tls_required_client_ca: str | None = setting(
        READABLE_FILE,
        "Authorities (PEM) of which one must have signed the client's certificate: without one the "
        "handshake fails, and without TLS mail is refused. (KumoMTA admits such clients.)",
        default=None,
        default_doc="no certificate is asked for",
    )
    trusted_proxies: tuple[IPNetwork, ...] = setting(
        NETWORKS,
        "Proxies whose connections begin with a PROXY header, which is believed; nobody else's "
        "is read.",
        default=(),
    )
    auth: str | None = setting(
        CHECKER,
        "Who may log in, and relay then: a Twisted cred plugin string, such as "
        "`file:/etc/kumo/users` (lines of NAME:PASSWORD). PLAIN and LOGIN are offered; "
        "SCRAM-SHA-256, too, where the plugin knows the passwords themselves, as `file:` does.",
        default=None,
        default_doc="nobody",
    )
    trace_headers: bool = setting(
        BOOLEAN, "Whether a Received field is put on top of each message.", default=True
    )

    def with_peers(self, rules: Iterable[Rule[IPNetwork]]) -> ListenerSettings:
        """These settings, and what holds for some networks instead."""
        ordered = sorted(rules, key=lambda rule: rule.pattern.prefixlen)
        return attrs.evolve(self, peers=tuple(ordered))

    def for_client(self, address: IPAddress) -> ListenerSettings:
        """What holds for a client: key by key, what the smallest of its networks says.

        @param address: an IPv4 client's as IPv4.
        """
        values: dict[str, Any] = {}
        for rule in self.peers:
            if address in rule.pattern:
                values.update(rule.values)
        return attrs.evolve(self, peers=(), **values) if values else self

    def problems(self) -> Iterable[Problem]:
        """What does not fit together."""
        yield from _pair_of_files(self.tls_certificate, self.tls_private_key)
        if self.max_message_size < 1024:
            yield Problem(("max_message_size",), "messages need at least 1024 bytes")
        if self.require_proxy_protocol and not self.trusted_proxies:
            yield Problem(
                ("require_proxy_protocol", "trusted_proxies"),
                "whose headers are to be believed? (trusted_proxies, or this key in a section "
                "[listener:NAME peer NETWORK])",
            )
        if self.tls_required_client_ca is not None and self.tls == "none":
            yield Problem(
                ("tls_required_client_ca", "tls"), "clients show certificates under TLS only"
            )
        if self.auth is None and self.require_auth:
            yield Problem(("require_auth", "auth"), "nobody can log in without auth")
        if self.auth is not None and self.tls == "none" and not self.allow_auth_without_tls:
            yield Problem(
                ("auth", "tls", "allow_auth_without_tls"),
                "nobody can log in: there is no TLS, and allow_auth_without_tls is off",
            )
        if self.max_octets_in_reception < self.max_message_size:
            yield Problem(
                ("max_octets_in_reception", "max_message_size"),
                "one message of max_message_size does not fit into max_octets_in_reception",
            )

    def server_options(self, node_hostname: str, auth: tuple[str, ...] = ()) -> ServerOptions:
        """What the wire machine needs to know.

        @param node_hostname: stands in for a C{hostname} that is not configured.
        @param auth: the SASL mechanisms that can be offered.
        """
        return ServerOptions(
            hostname=self.hostname or node_hostname,
            banner=self.banner,
            max_message_size=self.max_message_size,
            max_recipients=self.max_recipients_per_message,
            max_messages=self.max_messages_per_connection,
            line_endings=self.invalid_line_endings,
            line_length_limit=self.line_length_hard_limit,
            auth=auth,
            auth_without_tls=self.allow_auth_without_tls,
            require_auth=self.require_auth,
            xclient=self.allow_xclient,
            require_tls=self.tls_required_client_ca is not None,
            dsn=self.dsn,
            requiretls=True,
            binarymime=True,
        )


_STAGES = choice("connect", "mail", "rcpt", "data")


@attrs.define(frozen=True)
class SinkSettings:
    """A sink for trials.

    @ivar name: the section's name.
    """

    name: str = attrs.field(default="", kw_only=True)
    listen: str = setting(
        SERVER_ENDPOINT,
        "Where it listens: ADDR:PORT or a Twisted server endpoint string.",
        default="tcp:2526:interface=127.0.0.1",
    )
    hostname: str | None = setting(
        HOST_NAME,
        "The name in the greeting and in the answer to EHLO.",
        default=None,
        default_doc="the node's hostname",
    )
    max_message_size: int = setting(
        SIZE, "The largest message that is taken.", default=50 * 1024 * 1024
    )
    tls: Literal["starttls", "implicit", "none"] = setting(
        cast("SettingType[Literal['starttls', 'implicit', 'none']]", _TLS),
        "Whether clients may begin TLS with STARTTLS, must begin with it at once, or cannot.",
        default="starttls",
    )
    tls_certificate: str | None = setting(
        READABLE_FILE,
        "The certificate (PEM), followed by its chain.",
        default=None,
        default_doc="a self-signed one, made in the state directory",
    )
    tls_private_key: str | None = setting(
        READABLE_FILE, "The certificate's private key (PEM).", default=None
    )
    refuse: Reply | None = setting(
        REPLY,
        "Refuse with this reply, such as `451 4.3.2 try again later`; a 421 also hangs up.",
        default=None,
        default_doc="everything is accepted",
    )
    refuse_at: str = setting(
        _STAGES,
        "Where: when the client connects, at MAIL, at RCPT, or after the message (`data`).",
        default="data",
    )
    refuse_percent: int = setting(
        integer(0, 100), "How many of a hundred are refused, evenly spread.", default=100
    )
    refuse_every: int = setting(
        integer(), "Refuse every Nth instead of a percentage; 0: the percentage.", default=0
    )
    delay: float = setting(duration(0), "How long answers are held back.", default=0.0)
    delay_at: str = setting(_STAGES, "Which answers: the same words.", default="data")

    def problems(self) -> Iterable[Problem]:
        """What does not fit together."""
        yield from _pair_of_files(self.tls_certificate, self.tls_private_key)
        if self.max_message_size < 1024:
            yield Problem(("max_message_size",), "messages need at least 1024 bytes")
