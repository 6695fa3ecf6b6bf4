"""From a name and a password to the mechanism that a session logs in with."""

from __future__ import annotations

from kumotwist.smtp.session_errors import SessionAuthError
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import one_line
from kumotwist.wire.smtp.sasl_client import Mechanism, choose_mechanism

__all__ = ["mechanism_for"]


def mechanism_for(capabilities: Capabilities, username: str, password: str) -> Mechanism:
    """The best mechanism that a server offers, for one login.

    @raise SessionAuthError: if there is none, or name or password cannot be said with it.
    """
    offered = capabilities.auth_mechanisms
    try:
        mechanism = choose_mechanism(offered, username, password)
    except ValueError as error:
        raise SessionAuthError(Phase.AUTH.value, f"cannot log in: {error}") from None
    if mechanism is None:
        found = " ".join(sorted(offered)) or "none at all"
        text = f"cannot log in: no mechanism that we know is offered ({found})"
        raise SessionAuthError(Phase.AUTH.value, one_line(text, 400))
    return mechanism
