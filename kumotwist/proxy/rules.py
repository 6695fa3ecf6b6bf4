"""Who may go from which source address to which destination: a decision as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from attrs import define

from kumotwist.proxy.settings import ProxyRuleSettings
from kumotwist.settings.types import IPAddress, IPNetwork, PortRange

__all__ = ["DEFAULT_PORTS", "Decision", "Rules"]

#: The ports that need no rule: SMTP, submission with and without implicit TLS, and the port that
#: providers offer beside 25.
DEFAULT_PORTS = (25, 465, 587, 2525)

_DEFAULT_RANGES = tuple(PortRange(port, port) for port in DEFAULT_PORTS)


@define(frozen=True)
class Decision:
    """Whether something may be done.

    @ivar allowed: the answer.
    @ivar rule: what decided, such as C{[proxy-rule:trial]} or C{the default: loopback}.
    """

    allowed: bool
    rule: str


#: A network as its family, its first address and its mask: asking L{ipaddress} for each
#: connection takes several times as long.
_Range = tuple[int, int, int]


def _ranges(networks: Iterable[IPNetwork] | None) -> tuple[_Range, ...]:
    return tuple(
        (network.version, int(network.network_address), int(network.netmask))
        for network in networks or ()
    )


def _within(address: IPAddress, ranges: Iterable[_Range]) -> bool:
    number = int(address)
    for family, first, mask in ranges:
        if number & mask == first and address.version == family:
            return True
    return False


@lru_cache(4096)
def _guarded(address: IPAddress) -> str | None:
    """Why an address is out of reach by default, if it is."""
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_unspecified or (address.version == 4 and address.packed[0] == 0):
        return "unspecified"  # connecting to 0.0.0.0 or :: reaches this host
    if address.is_multicast or address.packed == b"\xff\xff\xff\xff":
        return "multicast or broadcast"
    return None


@define(frozen=True)
class _Rule:
    """One C{[proxy-rule:NAME]}, ready to be matched."""

    name: str
    settings: ProxyRuleSettings
    ports: tuple[PortRange, ...]
    clients: tuple[_Range, ...]
    sources: tuple[_Range, ...]
    destinations: tuple[_Range, ...]
    decision: Decision
    concerns_all: bool

    @classmethod
    def of(cls, name: str, rule: ProxyRuleSettings) -> _Rule:
        """A rule as it is configured."""
        allows = rule.action == "allow"
        return cls(
            name,
            rule,
            rule.ports or (_DEFAULT_RANGES if allows else ()),
            _ranges(rule.clients),
            _ranges(rule.sources),
            _ranges(rule.destinations),
            Decision(allows, f"[proxy-rule:{name}]"),
            not (rule.users or rule.clients or rule.sources),
        )

    def concerns(
        self, user: str | None, client: IPAddress | None, source: IPAddress | None
    ) -> bool:
        """Whether user, client and source match."""
        users = self.settings.users
        return (
            (not users or user in users)
            and (not self.clients or (client is not None and _within(client, self.clients)))
            and (not self.sources or (source is not None and _within(source, self.sources)))
        )

    def reaches(self, destination: IPAddress, port: int, guarded: bool) -> bool:
        """Whether the destination matches; an allowing rule must name a guarded one."""
        if self.destinations:
            if not _within(destination, self.destinations):
                return False
        elif guarded and self.decision.allowed:
            return False
        for first, last in self.ports:
            if first <= port <= last:
                return True
        return not self.ports


class Rules:
    """The rules of one proxy, in the order of the file, and what holds where none matches.

    @param rules: names and settings of all rules.
    @param proxy: the proxy's name; rules for others are left out.
    @param is_own: tells whether an address and a port are a listener of this process.
    """

    def __init__(
        self,
        rules: Iterable[tuple[str, ProxyRuleSettings]] = (),
        proxy: str | None = None,
        is_own: Callable[[IPAddress, int], bool] = lambda address, port: False,
    ) -> None:
        self._rules: Sequence[_Rule] = tuple(
            _Rule.of(name, rule)
            for name, rule in rules
            if rule.proxy is None or rule.proxy == proxy
        )
        self._is_own = is_own

    @property
    def look_at_sources(self) -> bool:
        """Whether a decision may depend on the source."""
        return any(rule.settings.sources for rule in self._rules)

    def decide(
        self,
        user: str | None,
        client: IPAddress | None,
        source: IPAddress | None,
        destination: IPAddress,
        port: int,
    ) -> Decision:
        """Whether a connection may be made.

        @param user: the name of the login, if there was one.
        @param client: the client's address; L{None} if it has none (a Unix socket).
        @param source: the address that the connection would leave from; L{None} where no rule
            looks at it.
        @param destination: where it would go.
        @param port: the port there.
        """
        guard: str | None = ""  # not looked for yet
        for rule in self._rules:
            if not (rule.concerns_all or rule.concerns(user, client, source)):
                continue
            if not rule.destinations and guard == "":
                guard = self._guard(destination, port)
            if rule.reaches(destination, port, guard is not None):
                return rule.decision
        if guard == "":
            guard = self._guard(destination, port)
        if guard is not None:
            return Decision(False, f"the default: {guard}")
        if port not in DEFAULT_PORTS:
            return Decision(False, "the default: not a port for mail")
        return Decision(True, "the default")

    def _guard(self, destination: IPAddress, port: int) -> str | None:
        """Why nobody gets there unless a rule names the destination, if that is so."""
        if guard := _guarded(destination):
            return guard
        return "the proxy's own listener" if self._is_own(destination, port) else None

    def decide_source(
        self, user: str | None, client: IPAddress | None, source: IPAddress
    ) -> Decision:
        """Whether a source address may be chosen: refused if no destination could be allowed."""
        for rule in self._rules:
            if not (rule.concerns_all or rule.concerns(user, client, source)):
                continue
            if rule.decision.allowed or not (rule.settings.destinations or rule.ports):
                return rule.decision
        return Decision(True, "the default")
