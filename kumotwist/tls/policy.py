"""What is demanded of TLS towards a host, as one decision with its reason.

L{decide} weighs what the operator has configured, what the message's sender wants (RFC 8689), what
the destination has published (DANE, MTA-STS), and what is remembered of the site. Nobody else
decides that; the reason goes into the delivery record.

The operator's word is one of KumoMTA's five values of C{enable_tls}. What they mean for one host:

====================== =================== ======================= ==================
value                  not offered         certificate not valid   handshake fails
====================== =================== ======================= ==================
Disabled               clear               (not looked at)         (not tried)
Opportunistic          clear               next host               next host
OpportunisticInsecure  clear               used, unverified        next host
Required               next host           next host               next host
RequiredInsecure       next host           used, unverified        next host
====================== =================== ======================= ==================

What a destination publishes can only raise that: the strongest demand wins, and DANE, which says
which certificate is the right one, goes before MTA-STS (RFC 8461, 2).

Falling back to clear text on the same host happens only over a new connection, and only where
C{opportunistic_tls_reconnect_on_failed_handshake}, C{remember_broken_tls} or the sender allows it
for a demand that is opportunistic.
"""

from __future__ import annotations

import enum

import attrs

from kumotwist.tls.dane import DANE
from kumotwist.tls.sts import STSPolicy

__all__ = ["PolicyType", "TLSDemand", "TLSWish", "decide", "tls_demand"]


class TLSWish(enum.Enum):
    """What a message's sender wants of TLS (RFC 8689); the values name it in records and lanes.

    With C{REQUIRED} only a verified TLS session will do, with a host that offers REQUIRETLS. With
    C{WAIVED} the message is to arrive whatever the recipient's side asks for.
    """

    NOTHING = ""
    REQUIRED = "REQUIRETLS"
    WAIVED = "TLS-Required: No"


class PolicyType(enum.Enum):
    """Whose policy applies to a host, in the words of TLS reports (RFC 8460, 4.2)."""

    DANE = "tlsa"
    STS = "sts"
    NONE = "no-policy-found"


@attrs.define(frozen=True)
class TLSDemand:
    """What is demanded of one host.

    @ivar attempt: use STARTTLS where it is offered.
    @ivar required: never send over an unencrypted connection.
    @ivar verify: the certificate must be good: for C{dane} if that is given, else for the host's
        name under an authority of the system's.
    @ivar reason: where the demand comes from, for the record.
    @ivar requiretls: the host must offer REQUIRETLS (RFC 8689).
    @ivar waived: the sender does without TLS where it cannot be had.
    @ivar dane: the TLSA records that decide which certificate is good.
    @ivar refusal: why the host must not be used at all; empty if it may be.
    @ivar policy: whose policy applies, for TLS reports.
    @ivar resume: a TLS session that was kept may be gone on with.
    """

    attempt: bool
    required: bool
    verify: bool
    reason: str
    requiretls: bool = False
    waived: bool = False
    dane: DANE | None = None
    refusal: str = ""
    policy: PolicyType = PolicyType.NONE
    resume: bool = True

    def after_failed_handshake(self, reconnect: bool, *, resumed: bool = False) -> TLSDemand | None:
        """What to try with the same host, over a new connection, when the handshake failed.

        Each answer asks for less than the demand before it: a full handshake instead of a resumed
        session, no TLS at all, nothing. So a host is never called without end.

        @param reconnect: C{opportunistic_tls_reconnect_on_failed_handshake}.
        @param resumed: whether a session was offered in that handshake. It may be the session that
            the host cannot go on with: nothing is known before a handshake without one has failed.
        @return: L{None} if there is nothing to try: the next host is due.
        """
        if resumed and self.resume and self.attempt:
            return attrs.evolve(self, resume=False)
        if not (reconnect or self.waived) or self.required or not self.attempt:
            return None
        reason = f"{self.reason}, clear after a failed handshake"
        return TLSDemand(False, False, False, reason, policy=self.policy, resume=False)


def tls_demand(enable_tls: str, wish: TLSWish = TLSWish.NOTHING) -> TLSDemand:
    """The demand that a value of C{enable_tls} stands for, with what the sender wants over it,
    where nothing is known of the destination.

    @param wish: C{REQUIRED} holds whatever C{enable_tls} says. C{WAIVED} takes back what is
        demanded for the recipient's sake; that the operator wants TLS (C{Required}) stays (RFC
        8689, 4.2.2).
    """
    if wish is TLSWish.REQUIRED:
        return TLSDemand(True, True, True, wish.value, requiretls=True)
    if wish is TLSWish.WAIVED and enable_tls == "Opportunistic":
        return TLSDemand(True, False, False, wish.value, waived=True)
    required = enable_tls.startswith("Required")
    return TLSDemand(
        attempt=enable_tls != "Disabled",
        required=required,
        verify=enable_tls in {"Opportunistic", "Required"},
        reason=f"enable_tls = {enable_tls}",
    )


def decide(
    enable_tls: str,
    host: str,
    wish: TLSWish = TLSWish.NOTHING,
    *,
    dane: DANE | None = None,
    sts: STSPolicy | None = None,
    broken: bool = False,
) -> TLSDemand:
    """Decide what is demanded of a host.

    @param enable_tls: the path's value.
    @param host: its name, in lower case and A-labels, without a final dot.
    @param wish: what the sender wants. With C{WAIVED} what the destination publishes does not
        count (RFC 8689, 4.2.2).
    @param dane: what DNSSEC vouches for about its certificate, usable or not; L{None} if DANE does
        not apply.
    @param sts: the mail domain's MTA-STS policy.
    @param broken: C{remember_broken_tls} holds for the site: TLS is not attempted where it is
        merely opportunistic.
    """
    demand = tls_demand(enable_tls, wish)
    if wish is not TLSWish.WAIVED:
        if dane is not None and dane.usable:
            demand = _raised(
                demand, True, f"DANE: TLSA records of {dane.base_domain}", PolicyType.DANE
            )
            demand = attrs.evolve(demand, dane=dane)
        else:
            if dane is not None:
                # They cannot authenticate, and still say that there is TLS (RFC 7672, 2.2).
                reason = f"DANE: only unusable TLSA records of {dane.base_domain}"
                verify = demand.required and demand.verify
                demand = _raised(demand, verify, reason, PolicyType.DANE)
            if sts is not None:
                demand = _with_sts(demand, host, sts)
    if broken and demand.attempt and not demand.required:
        reason = f"{demand.reason}, clear as the site's TLS is known to be broken"
        demand = attrs.evolve(demand, attempt=False, verify=False, reason=reason)
    return demand


def _raised(demand: TLSDemand, verify: bool, reason: str, policy: PolicyType) -> TLSDemand:
    """A demand raised by what the destination has published."""
    if demand.required or demand.policy is not PolicyType.NONE:
        reason = f"{demand.reason}; {reason}"
    return attrs.evolve(
        demand, attempt=True, required=True, verify=verify, reason=reason, policy=policy
    )


def _with_sts(demand: TLSDemand, host: str, sts: STSPolicy) -> TLSDemand:
    if sts.mode == "enforce":
        demand = _raised(demand, True, f"MTA-STS enforce of {sts.domain}", PolicyType.STS)
        if not sts.allows(host):
            refusal = f"the MTA-STS policy of {sts.domain} does not list it"
            demand = attrs.evolve(demand, refusal=refusal)
    elif sts.mode == "testing":
        # It is there to be reported on, and changes nothing (RFC 8461, 5).
        policy = PolicyType.STS if demand.policy is PolicyType.NONE else demand.policy
        reason = f"{demand.reason}; MTA-STS testing of {sts.domain}"
        demand = attrs.evolve(demand, reason=reason, policy=policy)
    return demand
