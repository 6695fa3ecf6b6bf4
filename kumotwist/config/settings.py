"""What can be configured about the node."""

from __future__ import annotations

import socket

import attrs

from kumotwist.queue.settings import NamingSettings
from kumotwist.settings import setting
from kumotwist.settings.types import HOST_NAME, TEXT, integer, list_of
from kumotwist.smtp.settings import MAILBOX

__all__ = ["NodeSettings"]


def _machine_name() -> str:
    try:
        return HOST_NAME.parse(socket.gethostname())
    except ValueError:
        # A name that no peer would accept in a greeting.
        return "localhost"


@attrs.define(frozen=True)
class NodeSettings(NamingSettings):
    """The node itself.

    Once a configuration has been loaded C{include} is empty: what it named is part of the rest.
    """

    hostname: str = setting(
        HOST_NAME,
        "The node's name: in greetings, in Received fields, in message ids.",
        factory=_machine_name,
        default_doc="the machine's name",
    )
    state_dir: str = setting(
        TEXT,
        "The directory below which the spool, the logs and the node's id live; relative to the "
        "working directory.",
        default="var",
    )
    workers: int = setting(
        integer(1, 1000),
        "Processes that share the listeners, each with a spool and queues of its own, under the "
        "limits of one node. Proxies, sinks and `[http]` have a process of their own then.",
        default=1,
    )
    include: tuple[str, ...] = setting(
        list_of(TEXT),
        "Further files, relative to this one: `conf.d/*.ini`. Only the main file can include.",
        default=(),
    )
    postmaster: str | None = setting(
        MAILBOX,
        "Where mail for `<postmaster>` goes, the address without a domain that every server has "
        "(RFC 5321, 4.5.1); anybody may write to it.",
        default=None,
        default_doc="it is refused",
    )
