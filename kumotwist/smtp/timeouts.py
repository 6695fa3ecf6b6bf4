"""How long the client waits for what, under KumoMTA's names.

The values are KumoMTA's, but where its documentation and its code disagree (C{data_timeout},
C{data_dot_timeout}) they are those of RFC 5321, 4.5.3.2: giving up on the reply to the final dot
too early makes duplicates (RFC 1047). C{idle_timeout}, of which the RFC says nothing for clients,
is KumoMTA's documented one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs

from kumotwist.settings import setting
from kumotwist.settings.types import duration
from kumotwist.wire.smtp.phases import Phase

__all__ = ["Timeouts"]

_PATIENCE = duration(0.001)

_OF_PHASE = {
    Phase.BANNER: "banner_timeout",
    Phase.EHLO: "ehlo_timeout",
    Phase.STARTTLS: "starttls_timeout",
    Phase.AUTH: "auth_timeout",
    Phase.MAIL: "mail_from_timeout",
    Phase.RCPT: "rcpt_to_timeout",
    Phase.DATA: "data_timeout",
    Phase.BODY: "data_block_timeout",
    Phase.DOT: "data_dot_timeout",
    Phase.RSET: "rset_timeout",
    Phase.QUIT: "quit_timeout",
    Phase.IDLE: "idle_timeout",
}


@attrs.define(frozen=True)
class Timeouts:
    """The patience of a client with a server, in seconds."""

    connect_timeout: float = setting(
        _PATIENCE, "How long connecting may take, a proxy's part included.", default=60.0
    )
    banner_timeout: float = setting(
        _PATIENCE, "How long the server may take to greet.", default=60.0
    )
    ehlo_timeout: float = setting(
        _PATIENCE, "How long the answer to EHLO or HELO may take.", default=300.0
    )
    starttls_timeout: float = setting(
        _PATIENCE,
        "How long the answer to STARTTLS may take, and then the handshake.",
        default=5.0,
    )
    auth_timeout: float = setting(_PATIENCE, "How long each answer to AUTH may take.", default=60.0)
    mail_from_timeout: float = setting(
        _PATIENCE, "How long the answer to MAIL may take.", default=300.0
    )
    rcpt_to_timeout: float = setting(
        _PATIENCE, "How long the answer to a RCPT may take.", default=300.0
    )
    data_timeout: float = setting(_PATIENCE, "How long the answer to DATA may take.", default=120.0)
    data_block_timeout: float = setting(
        _PATIENCE,
        "How long the server may take to read the next part (64 to 128 KiB) of a message.",
        default=180.0,
    )
    data_dot_timeout: float = setting(
        _PATIENCE,
        "How long the answer to the end of the message may take. Giving up too early sends the "
        "message twice.",
        default=600.0,
    )
    rset_timeout: float = setting(_PATIENCE, "How long the answer to RSET may take.", default=5.0)
    idle_timeout: float = setting(
        _PATIENCE, "How long a connection without mail to send is kept open.", default=60.0
    )
    quit_timeout: float = setting(
        _PATIENCE,
        "How long the answer to QUIT, and then closing the connection, may take.",
        default=5.0,
    )

    @cached_property
    def of(self) -> Mapping[Phase, float]:
        """How long to wait in each phase."""
        return {phase: getattr(self, name) for phase, name in _OF_PHASE.items()}
