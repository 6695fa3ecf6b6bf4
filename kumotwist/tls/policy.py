"""What a path demands of TLS towards a host, as one decision with its reason.

The five values are KumoMTA's C{enable_tls}. What they mean for one host:

====================== =================== ======================= ==================
value                  not offered         certificate not valid   handshake fails
====================== =================== ======================= ==================
Disabled               clear               (not looked at)         (not tried)
Opportunistic          clear               next host               next host
OpportunisticInsecure  clear               used, unverified        next host
Required               next host           next host               next host
RequiredInsecure       next host           used, unverified        next host
====================== =================== ======================= ==================

Falling back to clear text on the same host happens only over a new connection, and only where
C{opportunistic_tls_reconnect_on_failed_handshake} allows it for an opportunistic value.
"""

from __future__ import annotations

import enum

import attrs

__all__ = ["TLSDemand", "TLSWish", "tls_demand"]


class TLSWish(enum.Enum):
    """What a message's sender wants of TLS (RFC 8689); the values name it in records and lanes.

    With C{REQUIRED} only a verified TLS session will do, with a host that offers REQUIRETLS. With
    C{WAIVED} the message is to arrive whatever the recipient's side asks for.
    """

    NOTHING = ""
    REQUIRED = "REQUIRETLS"
    WAIVED = "TLS-Required: No"


@attrs.define(frozen=True)
class TLSDemand:
    """What is demanded of one host.

    @ivar attempt: use STARTTLS where it is offered.
    @ivar required: never send over an unencrypted connection.
    @ivar verify: the certificate must be valid for the host's name.
    @ivar reason: where the demand comes from, for the record.
    @ivar requiretls: the host must offer REQUIRETLS (RFC 8689).
    @ivar waived: the sender does without TLS where it cannot be had.
    """

    attempt: bool
    required: bool
    verify: bool
    reason: str
    requiretls: bool = False
    waived: bool = False

    def after_failed_handshake(self, reconnect: bool) -> TLSDemand | None:
        """What to try with the same host, over a new connection, when the handshake failed.

        @param reconnect: C{opportunistic_tls_reconnect_on_failed_handshake}.
        @return: L{None} if there is nothing to try: the next host is due.
        """
        if not (reconnect or self.waived) or self.required or not self.attempt:
            return None
        return TLSDemand(False, False, False, f"{self.reason}, clear after a failed handshake")


def tls_demand(enable_tls: str, wish: TLSWish = TLSWish.NOTHING) -> TLSDemand:
    """The demand that a value of C{enable_tls} stands for, with what the sender wants over it.

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
