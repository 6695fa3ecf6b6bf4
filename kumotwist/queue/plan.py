"""Which hosts a queue's mail may be handed to: the configured route, or the domain's MX hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from kumotwist.dns import DNSError, MailExchangers, before, site_name
from kumotwist.egress.settings import PathTable
from kumotwist.interfaces import IResolver
from kumotwist.queue.fairness import tenant_of
from kumotwist.queue.settings import QueueSettings
from kumotwist.tls.policy import TLSWish
from kumotwist.tls.sts import Finding, STSPolicy

__all__ = [
    "FindPolicy",
    "Host",
    "MailLoopError",
    "NullMXError",
    "Plan",
    "Planner",
    "domain_of_queue",
]

#: Domain, site and pool to what is known of the domain's policy; never fails.
FindPolicy = Callable[[str, str, str], Deferred[Finding]]


@attrs.define(frozen=True)
class Host:
    """A host to try.

    @ivar name: a host name (A-labels) or an address without brackets.
    @ivar port: the port that a route asked for; L{None} for the path's C{smtp_port}.
    @ivar preference: the MX record's: each session tries hosts of the same one in another order
        (RFC 5321, 5.1); L{None} for a host that has its place.
    """

    name: str
    port: int | None = None
    preference: int | None = None


@attrs.define(frozen=True)
class Plan:
    """The hosts of a site, in the order in which they are tried.

    @ivar site: the name of the set of hosts, as records show it.
    @ivar lane: what shares ready queues and connections: usually the site, whatever the domain.
        A domain that has settings of its own (C{[path:DOMAIN]}) keeps to itself, or its mail
        would travel on other domains' terms; so does what was routed and not looked up.
    @ivar domain: the domain that the plan was made for.
    @ivar hosts: what to try, best first.
    @ivar looked_up: whether the hosts were found by look-up, which makes C{prohibited_hosts}
        apply: a route is the operator's word.
    @ivar lmtp: whether LMTP is spoken with them (RFC 2033). Its sites have names of their own.
    @ivar tls: what the senders of this lane's messages want of TLS.
    @ivar sts: the domain's MTA-STS policy; L{None} if it has none, or nobody asked.
    @ivar sts_problem: why its policy could not be had, in the words of TLS reports.
    @ivar secure: whether DNSSEC vouches for these being the domain's hosts, and that is of use.
    """

    site: str
    lane: str
    domain: str
    hosts: tuple[Host, ...]
    looked_up: bool
    lmtp: bool = False
    tls: TLSWish = TLSWish.NOTHING
    secure: bool = False
    sts: STSPolicy | None = None
    sts_problem: str = ""

    def under(self, finding: Finding) -> Plan:
        """The same under the domain's MTA-STS policy, in a lane of those that demand the same."""
        policy = finding.policy
        lane = self.lane
        if policy is not None and policy.mode != "none":
            lane = f"{lane} under MTA-STS"
            if policy.mode != "enforce" or not all(policy.allows(host.name) for host in self.hosts):
                lane = f"{lane} of {self.domain}"
        return attrs.evolve(self, lane=lane, sts=policy, sts_problem=finding.problem)

    def wishing(self, wish: TLSWish) -> Plan:
        """The same for messages whose senders want something of TLS, in a lane of their own."""
        if wish is TLSWish.NOTHING:
            return self
        return attrs.evolve(self, lane=f"{self.lane} {wish.value}", tls=wish)


class NullMXError(DNSError):
    """A domain says with a null MX that it takes no mail (RFC 7505)."""

    def __init__(self, domain: str) -> None:
        super().__init__(domain, f"{domain} says that it takes no mail (null MX)", permanent=True)


class RejectedError(DNSError):
    """The operator does not want mail for this domain."""

    def __init__(self, domain: str, text: str) -> None:
        super().__init__(domain, text, permanent=True)


class MailLoopError(DNSError):
    """A domain's best mail exchanger is this very node, which does not keep mail for it."""

    def __init__(self, domain: str, host: str) -> None:
        text = f"mail for {domain} loops back to this node ({host} is its best mail exchanger)"
        super().__init__(domain, text, permanent=True)


def domain_of_queue(queue: str) -> str:
    """The domain whose MX hosts serve a queue: C{campaign:tenant@domain!routing_domain}."""
    domain = queue.rpartition("@")[2]
    routing_domain = domain.partition("!")[2]
    return routing_domain or domain


class Planner:
    """Makes plans.

    @param resolver: looks MX hosts up.
    @param paths: says which domains have settings of their own.
    @param ourselves: the names of this node, in lower case.
    @param find_policy: finds the MTA-STS policy for a domain, its site and a pool.
    """

    def __init__(
        self,
        resolver: IResolver,
        paths: PathTable,
        ourselves: Iterable[str] = (),
        find_policy: FindPolicy | None = None,
    ) -> None:
        self._resolver = resolver
        self._paths = paths
        self._ourselves = frozenset(ourselves)
        self._find_policy = find_policy

    def plan(self, queue: str, settings: QueueSettings) -> Deferred[Plan]:
        """Find the hosts for a queue.

        @return: fires with the plan; fails with L{kumotwist.dns.DNSError}.
        """
        domain = domain_of_queue(queue)
        if settings.reject is not None:
            return fail(RejectedError(domain, settings.reject))
        if settings.is_local:
            return succeed(Plan(settings.protocol, settings.protocol, domain, (), looked_up=False))
        lmtp = settings.protocol == "lmtp"
        prefix = "lmtp:" if lmtp else ""
        if settings.route:
            hosts = tuple(Host(hop.host, hop.port) for hop in settings.route)
            site = prefix + ",".join(str(hop) for hop in settings.route)
            return succeed(self._laned(site, domain, hosts, looked_up=False, lmtp=lmtp))

        def found(exchangers: MailExchangers) -> Plan:
            if exchangers.null_mx:
                raise NullMXError(domain)
            nearer = before(exchangers.hosts, self._ourselves)
            if not nearer:
                raise MailLoopError(domain, exchangers.hosts[0][1])
            site = exchangers.site_name
            if len(nearer) < len(exchangers.hosts):
                site = site_name([name for _, name in sorted(nearer)])
            hosts = tuple(Host(name, preference=preference) for preference, name in nearer)
            plan = self._laned(prefix + site, domain, hosts, looked_up=True, lmtp=lmtp)
            if not exchangers.secure or not self._paths.uses_dane:
                return plan
            # What is demanded of the hosts is more than for domains whose MX nobody vouches for.
            return attrs.evolve(plan, lane=f"{plan.lane} by DNSSEC", secure=True)

        looking: Deferred[MailExchangers] = self._resolver.lookup_mx(domain, tenant_of(queue))
        looked_up: Deferred[Plan] = looking.addCallback(found)
        find_policy = self._find_policy
        if find_policy is None or lmtp or domain.startswith("["):
            return looked_up

        def searched(plan: Plan) -> Deferred[Plan]:
            search = find_policy(domain, plan.site, settings.egress_pool)
            return search.addCallback(plan.under)

        return looked_up.addCallback(searched)

    def _laned(
        self, site: str, domain: str, hosts: tuple[Host, ...], *, looked_up: bool, lmtp: bool
    ) -> Plan:
        lane = site if looked_up else f"route {site}"
        if self._paths.singles_out(domain):
            lane = f"{lane} for {domain}"
        return Plan(site, lane, domain, hosts, looked_up, lmtp)
