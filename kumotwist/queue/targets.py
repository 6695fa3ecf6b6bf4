"""The walk through a plan: which address of which host a session tries next (RFC 5321, 5)."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import CancelledError

from kumotwist.egress.settings import PathSettings
from kumotwist.egress.source import Source
from kumotwist.interfaces import IResolver
from kumotwist.queue.plan import Host, Plan
from kumotwist.queue.verdicts import INTERNAL, Scope, Verdict, internal_reply, judge_lookup
from kumotwist.wire.smtp.replies import EnhancedCode, one_line

__all__ = ["IsOurs", "Target", "TargetWalk"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IsOurs = Callable[[IPAddress, int], bool]

#: Failures of hosts that are quoted when none could be used.
QUOTED_FAILURES = 4


@attrs.define(frozen=True)
class Target:
    """One address of one host."""

    host: Host
    address: IPAddress
    port: int

    def __str__(self) -> str:
        return _shown(self.host.name, self.address, self.port)


@functools.lru_cache(maxsize=1024)
def _shown(name: str, address: IPAddress, port: int) -> str:
    # Asked for several times for each connection.
    plain = str(address)
    shown = f"[{plain}]" if address.version == 6 else plain
    return f"{shown}:{port}" if name == plain else f"{name} ({shown}:{port})"


def _shuffled(hosts: Sequence[Host], chance: random.Random | None) -> Sequence[Host]:
    """The order of hosts for one session (RFC 5321, 5.1)."""
    if chance is None or len(hosts) == 1:
        return hosts
    ordered: list[Host] = []
    for preference, group in itertools.groupby(hosts, lambda host: host.preference):
        equals = list(group)
        if preference is not None:
            chance.shuffle(equals)
        ordered += equals
    return ordered


class TargetWalk:
    """Goes through the hosts of a plan, best first, and remembers what failed on the way.

    @param source: the way out: addresses of a family that it lacks are passed over.
    @param is_ours: says whether this node listens on an address and a port.
    @param chance: shuffles hosts of the same preference: a plan may serve a busy site for long, and
        each of them shall get its share of the connections.
    """

    def __init__(
        self,
        plan: Plan,
        source: Source,
        path: PathSettings,
        resolver: IResolver,
        is_ours: IsOurs | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._is_ours = is_ours
        self._plan = plan
        self._source = source
        self._path = path
        self._resolver = resolver
        self._hosts = deque(_shuffled(plan.hosts, chance))
        self._targets: deque[Target] = deque()
        self._verdicts: list[Verdict] = []
        self._mismatched = False

    @property
    def more(self) -> bool:
        """Whether there may be something left to try."""
        return bool(self._targets or self._hosts)

    @property
    def unsuitable(self) -> bool:
        """Whether nothing could be tried because of the source's address family."""
        return self._mismatched and all(verdict.blame == "nobody" for verdict in self._verdicts)

    @property
    def only_refused(self) -> bool:
        """Whether nothing but the source's own proxy, which works, stood in the way."""
        return all(
            verdict.scope is Scope.SOURCE or verdict.blame == "nobody" for verdict in self._verdicts
        )

    async def next(self) -> Target | None:
        """The next address to try; L{None} at the end."""
        while not self._targets:
            if not self._hosts:
                return None
            await self._resolve(self._hosts.popleft())
        return self._targets.popleft()

    def repeat(self, target: Target) -> None:
        """Try an address once more, before all others."""
        self._targets.appendleft(target)

    def failed(self, verdict: Verdict) -> None:
        """Remember why a target could not be used."""
        self._verdicts.append(verdict)

    def summary(self) -> Verdict:
        """One verdict for a site of which no host could be used.

        It is final only if every host's is.
        """
        verdicts = self._verdicts
        if not verdicts:
            reply = internal_reply(451, "4.4.4", f"{self._plan.site} has no hosts to try")
            return Verdict(Scope.SITE, reply)
        last = verdicts[-1]
        if len(verdicts) == 1 or all(verdict.permanent for verdict in verdicts):
            return attrs.evolve(last, scope=Scope.SITE)
        words = [
            verdict.reply.content.removeprefix(INTERNAL) for verdict in verdicts[-QUOTED_FAILURES:]
        ]
        text = one_line(f"no host of {self._plan.site} could be used: {'; '.join(words)}")
        charge = any(verdict.charge for verdict in verdicts)
        blamed = {verdict.blame for verdict in verdicts}
        blame = blamed.pop() if len(blamed) == 1 else "host"
        return Verdict(Scope.SITE, internal_reply(451, "4.4.1", text), charge=charge, blame=blame)

    async def _resolve(self, host: Host) -> None:
        """Find the addresses of a host and queue those that may be tried from this source."""
        try:
            literal = _literal(host.name)
            found = literal or await self._resolver.lookup_addresses(host.name)
        except CancelledError:
            raise  # the session is aborted; nothing is known of the host
        except Exception as failure:
            # Whatever is wrong with the name of one host, it is not the domain's last word.
            verdict = judge_lookup(failure, host.name)
            reply = verdict.reply._replace(code=451, enhanced_code=EnhancedCode(4, 4, 3))
            self.failed(Verdict(Scope.HOST, reply, blame="nobody"))
            return
        addresses = _ordered(found, self._path.ip_lookup_strategy)
        if not found:
            self._skip(host.name, "has no address")
        elif not addresses:
            strategy = self._path.ip_lookup_strategy
            self._skip(host.name, f"has no address that ip_lookup_strategy = {strategy} allows")
        port = self._source.settings.remote_port or host.port or self._path.smtp_port
        if self._loops(host, addresses, port):
            return
        for address in map(_plain, addresses):
            if self._may_try(host, address):
                self._targets.append(Target(host, address, port))

    def _loops(self, host: Host, addresses: list[IPAddress], port: int) -> bool:
        """Whether a host is this node; then worse hosts would only hand the mail back to it (RFC
        5321, 5.1)."""
        if self._is_ours is None or not self._plan.looked_up:
            return False
        for address in map(_plain, addresses):
            if self._is_ours(address, port):
                text = f"{host.name} ({address}) is this node: mail would loop back to it"
                reply = internal_reply(554, "5.4.6", text)
                self.failed(Verdict(Scope.HOST, reply, permanent=True, blame="message"))
                self._hosts.clear()
                return True
        return False

    def _may_try(self, host: Host, address: IPAddress) -> bool:
        name = f"{host.name} ({address})"
        if self._plan.looked_up and _within(address, self._path.prohibited_hosts):
            reply = internal_reply(550, "5.4.4", f"{name} is in prohibited_hosts")
            self.failed(Verdict(Scope.HOST, reply, permanent=True, blame="message"))
        elif _within(address, self._path.skip_hosts):
            self._skip(name, "is in skip_hosts")
        elif not self._source.reaches(address):
            self._mismatched = True
            self._skip(name, f"is not of the family of source {self._source.name}")
        else:
            return True
        return False

    def _skip(self, what: str, why: str) -> None:
        reply = internal_reply(451, "4.4.4", f"{what} {why}")
        self.failed(Verdict(Scope.HOST, reply, blame="nobody"))


def _within(
    address: IPAddress, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
) -> bool:
    return bool(networks) and any(address in network for network in networks)


@functools.lru_cache(maxsize=1024)
def _literal(name: str) -> tuple[IPAddress, ...]:
    """The address that stands in the place of a host's name, as in a route; empty if none does."""
    try:
        return (ipaddress.ip_address(name),)
    except ValueError:
        return ()


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 address that is written as an IPv6 one (RFC 4291, 2.5.5.2) as what it is.

    The kernel connects to C{::ffff:127.0.0.1} over IPv4, so C{prohibited_hosts} has to see that.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _ordered(addresses: tuple[IPAddress, ...], strategy: str) -> list[IPAddress]:
    """Addresses as C{ip_lookup_strategy} wants them."""
    if strategy == "Ipv4AndIpv6":
        return list(addresses)
    four: list[IPAddress] = [address for address in addresses if address.version == 4]
    six: list[IPAddress] = [address for address in addresses if address.version == 6]
    match strategy:
        case "Ipv4Only":
            return four
        case "Ipv6Only":
            return six
        case "Ipv4ThenIpv6":
            return four + six
        case "Ipv6ThenIpv4":
            return six + four
    return list(addresses)
