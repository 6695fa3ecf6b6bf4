"""What can be configured of checking sources: the C{[check]} section."""

from __future__ import annotations

import attrs

from kumotwist.settings import SettingType, setting
from kumotwist.settings.types import (
    DOMAIN,
    HOST_PORT,
    HostPort,
    duration,
    list_of,
    parse_host_port,
)

__all__ = ["BLOCKLISTS", "MX", "CheckSettings"]

_SMTP_PORT = 25


def _parse_mx(text: str) -> HostPort:
    try:
        return parse_host_port(text, _SMTP_PORT)
    except ValueError as error:
        raise ValueError(str(error).replace("HOST:PORT", "HOST[:PORT]")) from None


#: A mail host, on port 25 if nothing else is said.
MX: SettingType[HostPort] = SettingType("HOST[:PORT]", _parse_mx)
#: Domains of DNS blocklists.
BLOCKLISTS = list_of(DOMAIN)


@attrs.define(frozen=True)
class CheckSettings:
    """What C{kumo source check} tries."""

    mx: HostPort | None = setting(
        MX,
        "A mail host that is known to be up. Each source connects to it, reads its greeting, says "
        "EHLO and QUIT, and sends nothing.",
        default=None,
    )
    echo: HostPort | None = setting(
        HOST_PORT,
        "An SMTP server of yours that names the client's address in its answer to EHLO, as every "
        "kumotwist listener and sink does: it tells which address a source really leaves from.",
        default=None,
    )
    blocklists: tuple[str, ...] = setting(
        BLOCKLISTS,
        "The DNS blocklists to ask, such as `zen.spamhaus.org`.",
        default=(),
    )
    timeout: float = setting(
        duration(0.1),
        "How long connecting may take, a proxy's part included, how long each reply, and each "
        "look-up where `[dns] timeout` is longer.",
        default=20.0,
    )
