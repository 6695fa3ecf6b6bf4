"""What delivery sessions tell TLS reports (RFC 8460, 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.plan import Plan, domain_of_queue
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.targets import Target
from kumotwist.tls.policy import PolicyType, TLSDemand
from kumotwist.tls.report import TLSOutcome, fault_result

__all__ = ["CountOutcome", "SessionReport", "tls_result"]

CountOutcome = Callable[[TLSOutcome], None]


def tls_result(demand: TLSDemand, facts: AttemptFacts, host: str, plan: Plan) -> tuple[str, str]:
    """What a session that stands came to, for reports: also one that was allowed to be worse.

    @return: the result, empty for success, and what is wrong in words.
    """
    if facts.tls is None:
        return "starttls-not-supported", ""
    if demand.policy is PolicyType.DANE and demand.dane is None:
        return "tlsa-invalid", "no usable TLSA record"
    if demand.policy is PolicyType.NONE:
        return "", ""
    if demand.policy is PolicyType.STS and plan.sts is not None and not plan.sts.allows(host):
        return "validation-failure", "the policy does not list the host"
    if not facts.tls.verified:
        return fault_result(facts.tls.verify_error), facts.tls.verify_error
    return "", ""


class SessionReport:
    """Counts the connections of one delivery session, once for each domain whose mail they carry.

    @param count: takes the outcomes; L{None} if nobody wants them.
    @param plan: the session's.
    """

    def __init__(self, count: CountOutcome | None, plan: Plan) -> None:
        self._count = count
        self._plan = plan
        self._standing: TLSOutcome | None = None
        self._told: set[str] = set()

    def refused(self, batch: Iterable[QueuedMessage], target: Target, demand: TLSDemand) -> None:
        """A host was not dialled since what is demanded of it cannot be met."""
        result = "dnssec-invalid" if demand.policy is PolicyType.DANE else "validation-failure"
        self.dialled(batch, target, demand, AttemptFacts(), result, demand.refusal)

    def dialled(
        self,
        batch: Iterable[QueuedMessage],
        target: Target,
        demand: TLSDemand,
        facts: AttemptFacts,
        result: str,
        detail: str = "",
        *,
        stands: bool = False,
    ) -> None:
        """A host was dialled, and TLS came about or did not.

        @param result: see L{TLSOutcome}.
        @param stands: whether there is a session now, which may carry more messages.
        """
        if self._count is None:
            return
        policy, lines, hosts = self._policy(demand)
        if policy is PolicyType.NONE and self._plan.sts_problem:
            policy, result = PolicyType.STS, self._plan.sts_problem
            detail = "the policy could not be fetched"
        outcome = TLSOutcome(
            domain="",
            policy=policy,
            policy_lines=lines,
            policy_hosts=hosts,
            result=result,
            source=facts.source_address.rpartition(":")[0].strip("[]"),
            host=target.host.name,
            address=str(target.address),
            detail=detail,
        )
        self._standing = outcome if stands else None
        self._told.clear()
        self._tell(batch, outcome)

    def carries(self, batch: Iterable[QueuedMessage]) -> None:
        """The session carries further messages, maybe of other domains."""
        if self._standing is not None:
            self._tell(batch, self._standing)

    def _tell(self, batch: Iterable[QueuedMessage], outcome: TLSOutcome) -> None:
        assert self._count is not None
        for domain in {domain_of_queue(message.queue) for message in batch} - self._told:
            self._told.add(domain)
            if outcome.policy is PolicyType.STS and domain != self._plan.domain:
                # Under another policy, which demands the same.
                self._count(attrs.evolve(outcome, domain=domain, policy_lines=(), policy_hosts=()))
            else:
                self._count(attrs.evolve(outcome, domain=domain))

    def _policy(self, demand: TLSDemand) -> tuple[PolicyType, tuple[str, ...], tuple[str, ...]]:
        if demand.policy is PolicyType.DANE:
            records = () if demand.dane is None else demand.dane.records
            lines = tuple(f"{record} {record.data[:64].hex()}" for record in records)
            return PolicyType.DANE, lines, ()
        sts = self._plan.sts
        if demand.policy is PolicyType.STS and sts is not None:
            return PolicyType.STS, (*sts.lines,), sts.hosts
        return demand.policy, (), ()
