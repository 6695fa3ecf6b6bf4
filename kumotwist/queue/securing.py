"""What is known of a host before it is dialled, brought to the room that decides about TLS."""

from __future__ import annotations

import ipaddress

from kumotwist.dns import DNSError
from kumotwist.egress.settings import PathSettings
from kumotwist.interfaces import IResolver
from kumotwist.queue.plan import Plan
from kumotwist.queue.targets import Target
from kumotwist.tls.broken import BrokenTLS
from kumotwist.tls.dane import DANE, TLSARecord, usable_records
from kumotwist.tls.policy import PolicyType, TLSDemand, TLSWish, decide

__all__ = ["TLSPolicies"]


class TLSPolicies:
    """Decides what is demanded of each host that is about to be dialled.

    @param resolver: looks TLSA records up.
    @param broken: remembers sites whose TLS does not work.
    """

    def __init__(self, resolver: IResolver, broken: BrokenTLS) -> None:
        self._resolver = resolver
        self._broken = broken

    async def demand(self, plan: Plan, path: PathSettings, target: Target) -> TLSDemand:
        """What is demanded of a host; its C{refusal} says if it must not be used now."""
        try:
            dane = await self._dane(plan, path, target)
        except DNSError as failure:
            reason = f"DANE: {failure.text}"
            return TLSDemand(True, True, True, reason, refusal=reason, policy=PolicyType.DANE)
        return decide(
            path.enable_tls,
            target.host.name,
            plan.tls,
            dane=dane,
            sts=plan.sts if path.enable_mta_sts else None,
            broken=self._broken.remembers(plan.site),
        )

    async def _dane(self, plan: Plan, path: PathSettings, target: Target) -> DANE | None:
        """The TLSA records of a host.

        They count only if DNSSEC vouches for the way from the domain to the host as well; a route
        is the operator's word.
        """
        host = target.host.name
        if plan.tls is TLSWish.WAIVED:
            return None
        if not path.enable_dane or not (plan.secure or not plan.looked_up) or _is_address(host):
            return None
        found = await self._resolver.lookup_tlsa(host, target.port)
        if found is None:
            return None
        records = usable_records(TLSARecord(*record) for record in found.records)
        # Not the mail domain's name, which RFC 7672, 3.2.2 allows besides: a connection carries
        # the mail of all domains with the same hosts, and one domain's name proves nothing to
        # the others.
        names = (found.base_domain,) if plan.looked_up else (found.base_domain, host)
        return DANE(found.base_domain, records, tuple(dict.fromkeys(names)))

    def handshake_failed(self, plan: Plan, path: PathSettings) -> None:
        """TLS with a host of the site did not come about."""
        if path.remember_broken_tls is not None:
            self._broken.remember(plan.site, path.remember_broken_tls)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
