"""Which scheduled queue a message goes to: C{campaign:tenant@domain!routing_domain}.

The parts come from header fields (KumoMTA's queue helper names them the same way), from who has
logged in, or from the configuration. Header fields are believed of clients that may relay alone:
what strangers write steers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import attrs

from kumotwist.message.header import header_value, without_fields
from kumotwist.queue.settings import NamingSettings, QueueName, QueueTable, parse_label
from kumotwist.queue.timing import SchedulingError, Timing
from kumotwist.smtp.session import ServerSession

__all__ = ["Labels", "Naming", "NamingError"]

# What a user name may have and a queue's name may not.
_UNFIT = re.compile(r"[\s:*\x00-\x1f\x7f]")


class NamingError(ValueError):
    """A header field that steers the message cannot be understood; the text says why."""


class Labels(NamedTuple):
    """What a message says of itself.

    @ivar timing: the fields of its L{Timing}, for C{meta}; empty if it has none.
    """

    campaign: str = ""
    tenant: str = ""
    timing: Mapping[str, str] = MappingProxyType({})


_NO_LABELS = Labels()


@attrs.define(frozen=True)
class Naming:
    """Names queues.

    @ivar settings: which header fields count.
    @ivar queues: says which queues go by another domain (C{routing_domain}).
    """

    settings: NamingSettings
    queues: QueueTable

    def read(self, session: ServerSession, body: bytes) -> tuple[Labels, bytes]:
        """Read what a message says of itself.

        @return: that, and the message without the fields that are to be removed.
        @raise NamingError: if a field cannot be understood.
        """
        settings = self.settings
        tenant = _UNFIT.sub("_", session.user)[:128] if settings.tenant_from_login else ""
        if not settings.reads_header or not session.may_relay:
            tenant = tenant or settings.default_tenant or ""
            return (Labels("", tenant) if tenant else _NO_LABELS), body
        campaign = self._label(body, settings.campaign_header)
        # Who has logged in as somebody does not get to be somebody else.
        tenant = tenant or self._label(body, settings.tenant_header)
        labels = Labels(campaign, tenant or settings.default_tenant or "", self._timing(body))
        removed = settings.removed_headers
        return labels, without_fields(body, removed) if removed else body

    def refusal(self, session: ServerSession, domain: str) -> str | None:
        """Why mail for a domain is refused; L{None} if it is not.

        The header has not come yet: the tenant is who has logged in, or the default one.
        """
        if not self.queues.rejects:
            return None
        settings = self.settings
        tenant = _UNFIT.sub("_", session.user)[:128] if settings.tenant_from_login else ""
        name = self.name(Labels("", tenant or settings.default_tenant or ""), domain)
        return self.queues.resolve(name).reject

    def name(self, labels: Labels, domain: str) -> str:
        """The name of the queue for a domain."""
        if not (labels.tenant or labels.campaign or self.queues.reroutes):
            return domain
        return self.place(QueueName(labels.campaign, labels.tenant, domain, ""))

    def place(self, name: QueueName) -> str:
        """The queue's name, with the routing domain that the configuration has for it."""
        if not name.routing_domain:
            routing = self.queues.resolve(str(name)).routing_domain
            if routing and routing != name.domain:
                name = name._replace(routing_domain=routing)
        return str(name)

    def _label(self, body: bytes, header: str | None) -> str:
        value = _value(body, header)
        if not value:
            return ""
        try:
            return parse_label(value)
        except ValueError as error:
            raise NamingError(f"{header}: {error}") from None

    def _timing(self, body: bytes) -> dict[str, str]:
        header = self.settings.scheduling_header
        value = _value(body, header)
        if not value:
            return {}
        try:
            return Timing.parse(value)
        except SchedulingError as error:
            raise NamingError(f"{header}: {error}") from None


def _value(body: bytes, header: str | None) -> str:
    value = header_value(body, header.encode()) if header else None
    if not value:
        return ""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NamingError(f"{header}: it is not UTF-8") from None
