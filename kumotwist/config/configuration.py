"""A whole configuration as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kumotwist.check.settings import CheckSettings
from kumotwist.config.settings import NodeSettings
from kumotwist.dns.settings import DNSSettings
from kumotwist.egress.settings import PathTable, PoolSettings, SourceSettings
from kumotwist.http.settings import HTTPSettings
from kumotwist.journal.settings import LogSettings
from kumotwist.proxy.settings import ProxyRuleSettings, ProxySettings
from kumotwist.queue.settings import QueueTable
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.spool.settings import SpoolSettings
from kumotwist.tls.settings import TLSReportSettings

__all__ = ["Configuration"]


@attrs.define(frozen=True)
class Configuration:
    """What the files say, with defaults filled in. The mappings are by name, in file order.

    @ivar node: C{[kumo]}.
    @ivar http: L{None} without C{[http]}: there is no HTTP listener then.
    @ivar sources: with C{unspecified}, the direct one, whether it is in the file or not.
    @ivar pools: with C{unspecified} likewise.
    @ivar queues: what holds for a scheduled queue.
    @ivar paths: what holds for a site and a source.
    @ivar proxy_rules: their order is their precedence.
    @ivar tls_reports: L{None} without C{[tls-reports]}: nobody is told of TLS then.
    @ivar texts: the text of each file that was read, the main one first; not part of equality.
    @ivar given: what stands in them: C{[KIND]} or C{[KIND:NAME]} for each section,
        and C{[kumo] hostname}; not part of equality.
    """

    node: NodeSettings
    spool: SpoolSettings
    log: LogSettings
    dns: DNSSettings
    http: HTTPSettings | None
    listeners: Mapping[str, ListenerSettings]
    sources: Mapping[str, SourceSettings]
    pools: Mapping[str, PoolSettings]
    queues: QueueTable
    paths: PathTable
    proxies: Mapping[str, ProxySettings]
    proxy_rules: Mapping[str, ProxyRuleSettings]
    sinks: Mapping[str, SinkSettings]
    check: CheckSettings
    tls_reports: TLSReportSettings | None = None
    # There are passwords in them.
    texts: Mapping[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    given: frozenset[str] = attrs.field(default=frozenset(), eq=False)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, the main one first."""
        return tuple(self.texts)
