"""What can be configured about queues; the names are KumoMTA's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import attrs

from kumotwist.settings import SettingType, setting
from kumotwist.settings.layers import Rule, RuleTable, refuse_misspelt_default
from kumotwist.settings.types import (
    BOOLEAN,
    DOMAIN,
    RATE,
    TEXT,
    Rate,
    duration,
    list_of,
    parse_domain,
)

__all__ = [
    "NamingSettings",
    "QueueName",
    "QueuePattern",
    "QueueSettings",
    "QueueTable",
    "SmartHost",
    "parse_label",
]


class SmartHost(NamedTuple):
    """A host that a route names.

    @ivar host: a name (lower case, A-labels) or an address without brackets.
    @ivar port: the port, or L{None} for the path's C{smtp_port}.
    """

    host: str
    port: int | None

    @property
    def is_address(self) -> bool:
        """Whether C{host} is an address."""
        return _is_address(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.is_address else self.host
        return host if self.port is None else f"{host}:{self.port}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _parse_smart_host(text: str) -> SmartHost:
    wrong = f"{text!r} is not a host (such as [10.0.0.1]:2526 or mx.example.com:587)"
    match = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([^\[\]\s:]+))(?::(\d{1,5}))?", text.strip())
    if match is None:
        raise ValueError(wrong)
    literal, name, digits = match.groups()
    port = None if digits is None else int(digits)
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    if literal is not None or _is_address(name):
        address = re.sub(r"(?i)^ipv6:", "", literal or name)
        if not _is_address(address):
            raise ValueError(wrong)
        return SmartHost(str(ipaddress.ip_address(address)), port)
    return SmartHost(parse_domain(name), port)


SMART_HOST: SettingType[SmartHost] = SettingType("host", _parse_smart_host)


def _parse_protocol(text: str) -> str:
    word = text.strip()
    if word.lower() in {"smtp", "lmtp", "null"}:
        return word.lower()
    if word.lower().startswith("maildir:"):
        path = word.partition(":")[2]
        if not path.startswith("/") or re.search(r"\{(?!(local|domain)\})", path):
            raise ValueError(
                f"{text!r}: an absolute path is needed, in which {{local}} and {{domain}} stand "
                "for parts of the recipient (such as maildir:/var/mail/{domain}/{local})"
            )
        return f"maildir:{path}"
    raise ValueError(f"{text!r} is not a protocol (smtp, lmtp, maildir:PATH, null)")


@attrs.define(frozen=True)
class QueueSettings:
    """How mail is queued (KumoMTA's C{make_queue_config})."""

    egress_pool: str = setting(
        TEXT,
        "The pool of sources that this mail leaves through; `unspecified` always exists and has "
        "one direct source.",
        default="unspecified",
    )
    retry_interval: float = setting(
        duration(1),
        "The delay before the second attempt; each later one doubles it.",
        default=1200.0,
    )
    max_retry_interval: float | None = setting(
        duration(1), "No delay is longer than this.", default=None
    )
    max_age: float = setting(
        duration(1), "Mail that is older is returned to its sender.", default=604800.0
    )
    delay_report_after: float = setting(
        duration(1),
        "How old a message must be before its sender is told that it is late: once, and only if "
        "the sender asked for it (`NOTIFY=DELAY`, RFC 3461) or `delay_report_by_default` is set.",
        default=14400.0,
    )
    delay_report_by_default: bool = setting(
        BOOLEAN,
        "Whether senders who do not say what they want to hear of are told of delays, too.",
        default=False,
    )
    max_message_rate: Rate | None = setting(
        RATE,
        "Messages of each queue that are sent in a time: `100/s`, `1,000/hour`, "
        "`10/5m,max_burst=3`.",
        default=None,
    )
    route: tuple[SmartHost, ...] = setting(
        list_of(SMART_HOST),
        "Hosts that take this mail, tried in this order, instead of the domain's MX hosts: "
        "`[127.0.0.1]:2526`, `mx.example.com:587`.",
        default=(),
        default_doc="MX look-up",
    )
    routing_domain: str | None = setting(
        DOMAIN,
        "The domain whose MX hosts (or `[path:…]`) are used instead of the recipients' own.",
        default=None,
        default_doc="the recipients' domain",
    )
    reject: str | None = setting(
        TEXT,
        "Mail for these recipients is refused (550 5.7.1) with this text; what is queued already "
        "is returned.",
        default=None,
    )
    protocol: str = setting(
        SettingType("one of `smtp`, `lmtp`, `maildir:PATH`, `null`", _parse_protocol),
        "How it is delivered. LMTP (KumoMTA's `use_lmtp`) is for a mail store that a `route` "
        "names, with its port. `maildir:/var/mail/{domain}/{local}` puts it into files, `null` "
        "drops it.",
        default="smtp",
    )

    @property
    def is_local(self) -> bool:
        """Whether the mail goes nowhere over the network."""
        return self.protocol == "null" or self.protocol.startswith("maildir:")


def _parse_header_name(text: str) -> str:
    if not re.fullmatch(r"[!-9;-~]{1,64}", text.strip()):
        raise ValueError(f"{text!r} is not the name of a header field (such as X-Tenant)")
    return text.strip()


HEADER_NAME: SettingType[str] = SettingType("header field", _parse_header_name)


# What has a meaning in a queue's name, or in a pattern, cannot be part of a part of it.
_LABEL = re.compile(r"[^\s:*\x00-\x1f\x7f]{1,128}")


def parse_label(text: str) -> str:
    """Read the name of a tenant or of a campaign.

    @raise ValueError: if it could not be part of a queue's name.
    """
    label = text.strip()
    if not _LABEL.fullmatch(label) or not label.isprintable():
        raise ValueError("a name has up to 128 characters, no blanks, no : and no *")
    return label


LABEL: SettingType[str] = SettingType("name", parse_label)


@attrs.define(frozen=True)
class NamingSettings:
    """Which queue a message goes to (KumoMTA's queue helper)."""

    tenant_header: str | None = setting(
        HEADER_NAME,
        "The header field that names a message's tenant: `X-Tenant`. It is read from clients that "
        "may relay.",
        default=None,
    )
    remove_tenant_header: bool = setting(
        BOOLEAN, "Whether that field is removed from the message.", default=False
    )
    campaign_header: str | None = setting(
        HEADER_NAME, "The header field that names its campaign: `X-Campaign`.", default=None
    )
    remove_campaign_header: bool = setting(
        BOOLEAN, "Whether that field is removed from the message.", default=False
    )
    scheduling_header: str | None = setting(
        HEADER_NAME,
        "The header field that says when it may be sent: `X-Schedule`, a JSON object of "
        "`first_attempt`, `expires`, `dow`, `tz`, `start` and `end`.",
        default=None,
    )
    remove_scheduling_header: bool = setting(
        BOOLEAN, "Whether that field is removed from the message.", default=True
    )
    default_tenant: str | None = setting(
        LABEL, "The tenant of a message that names none.", default=None
    )
    tenant_from_login: bool = setting(
        BOOLEAN,
        "Whether the tenant of a client that has logged in is its user name, whatever the header "
        "says.",
        default=False,
    )

    @property
    def reads_header(self) -> bool:
        """Whether messages have to be looked at."""
        return bool(self.tenant_header or self.campaign_header or self.scheduling_header)

    @property
    def removed_headers(self) -> frozenset[bytes]:
        """The fields that are removed, in lower case."""
        fields = (
            (self.remove_tenant_header, self.tenant_header),
            (self.remove_campaign_header, self.campaign_header),
            (self.remove_scheduling_header, self.scheduling_header),
        )
        return frozenset(name.lower().encode() for remove, name in fields if remove and name)


class QueueName(NamedTuple):
    """A scheduled queue's name in its parts: C{campaign:tenant@domain!routing_domain}.

    @ivar campaign: the campaign, or C{""}.
    @ivar tenant: the tenant, or C{""}.
    @ivar domain: the recipients' domain.
    @ivar routing_domain: the domain whose MX hosts are used instead, or C{""}.
    """

    campaign: str
    tenant: str
    domain: str
    routing_domain: str

    @classmethod
    def parse(cls, text: str) -> QueueName:
        """Take a name apart; every text is a name."""
        prefix, _, rest = text.rpartition("@")
        campaign, colon, tenant = prefix.partition(":")
        if not colon:
            campaign, tenant = "", prefix
        domain, _, routing_domain = rest.partition("!")
        return cls(campaign, tenant, domain, routing_domain)

    def __str__(self) -> str:
        prefix = f"{self.campaign}:{self.tenant}" if self.campaign else self.tenant
        rest = f"{self.domain}!{self.routing_domain}" if self.routing_domain else self.domain
        return f"{prefix}@{rest}" if prefix else rest


def _rank(part: str) -> tuple[int, int]:
    """How specific a part of a pattern is: a word, a word with a star by its length, nothing."""
    if not part:
        return (0, 0)
    return (1, len(part.replace("*", ""))) if "*" in part else (2, 0)


def _matches(part: str, value: str) -> bool:
    if "*" not in part:
        return not part or part == value
    return re.fullmatch(".*".join(map(re.escape, re.split(r"\*+", part))), value) is not None


def _parse_domain_pattern(text: str) -> str:
    if text.startswith("["):
        return text.lower()
    if "*" not in text:
        return parse_domain(text)
    labels = text.lower().removesuffix(".").split(".")
    if not all(re.fullmatch(r"[a-z0-9_*-]+", label) for label in labels if label.isascii()):
        raise ValueError(f"{text!r} is not a pattern of domains (such as *.example.com)")
    return ".".join(label if label.isascii() else parse_domain(label) for label in labels)


@attrs.define(frozen=True)
class QueuePattern:
    """C{default}, or a queue's name in which parts may be missing or have a C{*}.

    A part that is missing matches anything; so does C{*}, also where the queue has no such part.

    @ivar domain: the domain, C{default} for every queue.
    """

    domain: str
    tenant: str = ""
    campaign: str = ""

    @classmethod
    def parse(cls, text: str) -> QueuePattern:
        """Read a pattern; raise L{ValueError}."""
        name = QueueName.parse(text.strip())
        if name.routing_domain or not name.domain or re.search(r"\s", text.strip()):
            raise ValueError(
                f"{text!r} is not a pattern of queues (default, DOMAIN, TENANT@DOMAIN or "
                "CAMPAIGN:TENANT@DOMAIN, with a * in any part)"
            )
        refuse_misspelt_default(name.domain.lower())
        domain = _parse_domain_pattern(name.domain)
        if domain == "default" and (name.tenant or name.campaign):
            raise ValueError(f"{text!r}: default stands alone ({name._replace(domain='*')})")
        return cls(domain, name.tenant, name.campaign)

    @property
    def specificity(self) -> tuple[tuple[int, int], ...]:
        """Patterns compare by their domain, then by their tenant, then by their campaign."""
        return (_rank(self.domain), _rank(self.tenant), _rank(self.campaign))

    def matches(self, name: QueueName) -> bool:
        """Whether a queue is meant."""
        return (
            _matches(self.domain, name.domain)
            and _matches(self.tenant, name.tenant)
            and _matches(self.campaign, name.campaign)
        )

    def __str__(self) -> str:
        return str(QueueName(self.campaign, self.tenant, self.domain, ""))


class QueueTable(RuleTable[QueuePattern, QueueSettings]):
    """The queues' rules: key by key the most specific one wins, of two equal ones the later."""

    def __init__(self, rules: Iterable[Rule[QueuePattern]] = ()) -> None:
        """Sort the rules."""
        default = QueueSettings()
        others = []
        for rule in rules:
            if rule.pattern == QueuePattern("default"):
                default = attrs.evolve(default, **rule.values)
            else:
                others.append(rule)
        others.sort(key=lambda rule: rule.pattern.specificity)
        super().__init__(default, others)
        self._by_domain: dict[str, list[int]] = {}
        self._wild: list[int] = []
        for number, rule in enumerate(self.rules):
            domain = rule.pattern.domain
            positions = self._wild if "*" in domain else self._by_domain.setdefault(domain, [])
            positions.append(number)
        #: Whether any queue's mail may be refused.
        self.rejects = default.reject is not None or any(
            rule.values.get("reject") is not None for rule in self.rules
        )
        #: Whether any queue may have a C{routing_domain}.
        self.reroutes = default.routing_domain is not None or any(
            "routing_domain" in rule.values for rule in self.rules
        )
        self._cached = lru_cache(maxsize=16384)(self._find)

    def resolve(self, queue_name: str) -> QueueSettings:
        """The settings of a scheduled queue.

        @param queue_name: C{campaign:tenant@domain!routing_domain} or less, the domain in lower
            case and A-labels.
        """
        return self._cached(queue_name) if self.rules else self.default

    def _find(self, queue_name: str) -> QueueSettings:
        name = QueueName.parse(queue_name)
        # Starred domains sort before whole ones, so this stays in order of specificity.
        candidates = [*self._wild, *self._by_domain.get(name.domain, ())]
        return self.merge(
            tuple(number for number in candidates if self.rules[number].pattern.matches(name))
        )
