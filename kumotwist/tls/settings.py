"""What can be configured of TLS reports: the C{[tls-reports]} section."""

from __future__ import annotations

import re

import attrs

from kumotwist.settings import SettingType, setting
from kumotwist.settings.types import TEXT, duration

__all__ = ["TLSReportSettings"]


def _parse_mailbox(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+=-]{1,64}@[A-Za-z0-9.-]{1,253}", text.strip()):
        raise ValueError(f"{text!r} is not an address (such as tls-reports@example.com)")
    return text.strip()


MAILBOX: SettingType[str] = SettingType("address", _parse_mailbox)


@attrs.define(frozen=True)
class TLSReportSettings:
    """Reports on TLS to the domains that ask for them (RFC 8460)."""

    organization_name: str = setting(TEXT, "Who reports: a company's name.")
    contact_info: str = setting(MAILBOX, "Whom to ask about a report.")
    sender: str | None = setting(
        MAILBOX, "The address that reports come from.", default=None, default_doc="`contact_info`"
    )
    interval: float = setting(
        duration(1),
        "The time that a report covers. RFC 8460 wants a day, in UTC; anything else is for trials.",
        default=86400.0,
    )
    max_delay: float = setting(
        duration(0),
        "Reports are sent at a random moment within this time after their end, so that not all "
        "senders of the world report at midnight.",
        default=14400.0,
    )
