"""What a message's sender wants of TLS on the way to the recipient (RFC 8689).

REQUIRETLS is kept with the message and holds for every hop; C{TLS-Required: No} in the header asks
that the message be delivered whatever the recipient's side says of TLS. Messages that want
something have lanes, hence connections, of their own.
"""

from __future__ import annotations

from kumotwist.message.queued import QueuedMessage
from kumotwist.tls.policy import TLSWish

__all__ = ["REQUIRED", "WAIVED", "tls_wish"]

#: The keys of a message's C{meta}.
REQUIRED = "requiretls"
WAIVED = "tls_not_required"

# As a message that sleeps has them: most want nothing, and need not wake up for that.
_NAMES = (REQUIRED.encode(), WAIVED.encode())


def tls_wish(message: QueuedMessage) -> TLSWish:
    """What the sender of a message asks for.

    A report on a message with REQUIRETLS is sent with REQUIRETLS where that is offered, and is not
    lost where it is not: with the null sender, nothing is demanded (RFC 8689, 5).
    """
    asleep = message.asleep
    if asleep is not None and not any(name in asleep for name in _NAMES):
        return TLSWish.NOTHING
    meta = message.meta
    if REQUIRED in meta:
        return TLSWish.REQUIRED if message.sender else TLSWish.NOTHING
    return TLSWish.WAIVED if WAIVED in meta else TLSWish.NOTHING
