"""The kinds of sections: which settings class each one fills, and how it is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kumotwist.check.settings import CheckSettings
from kumotwist.config.planned import CONTRACT, planned_keys
from kumotwist.config.settings import NodeSettings
from kumotwist.dns.settings import DNSSettings
from kumotwist.egress.settings import PathPattern, PathSettings, PoolSettings, SourceSettings
from kumotwist.http.settings import HTTPSettings
from kumotwist.journal.settings import LogSettings
from kumotwist.proxy.settings import ProxyRuleSettings, ProxySettings
from kumotwist.queue.settings import QueuePattern, QueueSettings
from kumotwist.settings import Setting, declared
from kumotwist.smtp.settings import ClientSettings, ListenerSettings, PeerPattern, SinkSettings
from kumotwist.spool.settings import SpoolSettings
from kumotwist.tls.settings import TLSReportSettings

__all__ = ["KINDS", "PLANNED_KINDS", "SectionKind", "kind_of"]


def _parse_name(text: str) -> str:
    if not re.fullmatch(r"[\w.:/+-]+", text):
        raise ValueError(f"{text!r} is not a name (letters, digits and any of . _ - : / +)")
    return text


@attrs.define(frozen=True)
class SectionKind:
    """A kind of section.

    @ivar name: what it is called here.
    @ivar settings: the class that its keys fill.
    @ivar doc: what it is, for the reference page.
    @ivar label: what stands after the colon, C{NAME} or C{PATTERN}; empty if nothing does.
    @ivar parse_name: reads that.
    @ivar begins_with: the word before the colon, if it is not the name.
    """

    name: str
    settings: type[Any]
    doc: str
    label: str = ""
    parse_name: Callable[[str], Any] = _parse_name
    begins_with: str = ""

    @property
    def word(self) -> str:
        """The word before the colon."""
        return self.begins_with or self.name

    @property
    def form(self) -> str:
        """The header in general, such as C{source:NAME}."""
        return f"{self.word}:{self.label}" if self.label else self.word

    @property
    def keys(self) -> Mapping[str, tuple[attrs.Attribute[Any], Setting]]:
        """The keys that are built, in the order of their declaration."""
        return declared(self.settings)

    @property
    def planned(self) -> frozenset[str]:
        """The keys that are not built yet."""
        return planned_keys(self.name, frozenset(self.keys))

    @property
    def named(self) -> bool:
        """Whether the settings carry the section's name."""
        return "name" in attrs.fields_dict(self.settings) and "name" not in self.keys

    @property
    def is_pool(self) -> bool:
        """Whether the keys are names of sources instead of settings."""
        return self.settings is PoolSettings


#: By name, in the order of the reference page.
KINDS: dict[str, SectionKind] = {
    kind.name: kind
    for kind in (
        SectionKind("kumo", NodeSettings, "The node."),
        SectionKind("spool", SpoolSettings, "Where accepted mail is kept."),
        SectionKind("log", LogSettings, "The delivery records."),
        SectionKind("dns", DNSSettings, "How names are looked up."),
        SectionKind(
            "listener",
            ListenerSettings,
            "An ESMTP listener. Without such a section no mail comes in by SMTP.",
            "NAME",
        ),
        SectionKind(
            "listener-peer",
            ClientSettings,
            "What holds instead for the clients of a listener that connect from a network. Key by "
            "key the smallest network wins that the client is in.",
            "NAME peer NETWORK",
            PeerPattern.parse,
            begins_with="listener",
        ),
        SectionKind(
            "http",
            HTTPSettings,
            "The HTTP listener. Without this section there is none.",
        ),
        SectionKind(
            "source",
            SourceSettings,
            "An egress source: exactly one way out, which is a SOCKS5 proxy, an HAProxy, a local "
            "address, any client endpoint, or the machine's default route if nothing is said.",
            "NAME",
        ),
        SectionKind(
            "pool",
            PoolSettings,
            "An egress pool: each key is the name of a source, its value the weight; 0 takes no "
            "mail. The pool `unspecified`, with one direct source of that name, always exists.",
            "NAME",
        ),
        SectionKind(
            "queue",
            QueueSettings,
            "How mail is queued. PATTERN is `default`, a domain, `tenant@domain` or "
            "`campaign:tenant@domain`, with a `*` in any part. Key by key the most specific "
            "match wins: first by the domain, then by the tenant, then by the campaign.",
            "PATTERN",
            QueuePattern.parse,
        ),
        SectionKind(
            "path",
            PathSettings,
            "How a site is spoken to from a source. PATTERN is `default`, a domain or a site "
            "name, or one of them followed by ` via SOURCE`. Key by key the most specific match "
            "wins: default, site, domain, and then the same again of those that name the source.",
            "PATTERN",
            PathPattern.parse,
        ),
        SectionKind("proxy", ProxySettings, "A KumoProxy listener.", "NAME"),
        SectionKind(
            "proxy-rule",
            ProxyRuleSettings,
            "What a KumoProxy allows; the first match in the order of the file decides.",
            "NAME",
        ),
        SectionKind(
            "sink",
            SinkSettings,
            "A sink for trials: it accepts everything, keeps nothing, and logs where each message "
            "came from.",
            "NAME",
        ),
        SectionKind(
            "tls-reports",
            TLSReportSettings,
            "Daily reports on TLS to the domains that ask for them (RFC 8460). Without this "
            "section nothing is counted and nobody is told.",
        ),
        SectionKind(
            "check",
            CheckSettings,
            "What `kumo source check` tries; the node itself does not use it.",
        ),
    )
}


def kind_of(word: str, label: str) -> SectionKind | None:
    """The kind of a section, by the word before the colon and by what follows it."""
    if word == "listener" and re.search(r"\speer(\s|$)", label):
        return KINDS["listener-peer"]
    kind = KINDS.get(word)
    return None if kind is None or kind.word != word else kind


#: Kinds that are agreed on and not built yet.
PLANNED_KINDS = frozenset(CONTRACT) - frozenset(KINDS)
