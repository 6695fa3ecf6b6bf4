"""How a client speaks with a server, as far as it can choose."""

from __future__ import annotations

import attrs

__all__ = ["DEFAULT_DIALECT", "Dialect"]


@attrs.define(frozen=True, kw_only=True)
class Dialect:
    """What a client does where the server would have it.

    @ivar pipelining: use PIPELINING where it is offered (RFC 2920).
    @ivar chunking: use BDAT where CHUNKING is offered (RFC 3030).
    @ivar lmtp: speak LMTP (RFC 2033): LHLO, and a reply of its own for each recipient.
    @ivar reset: say RSET before every transaction but the first, also where none is needed.
    """

    pipelining: bool = True
    chunking: bool = True
    lmtp: bool = False
    reset: bool = False


#: Everything that makes delivery quick.
DEFAULT_DIALECT = Dialect()
