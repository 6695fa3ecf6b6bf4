"""MTA-STS for a node: who is asked for policies, which way a fetch goes, where they are kept."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from kumotwist.egress import Source, SourceHealth
from kumotwist.egress.named import NamedHostEndpoint
from kumotwist.egress.settings import PathSettings
from kumotwist.service.live import LiveSettings
from kumotwist.settings.types import IPAddress
from kumotwist.tls.https import EndpointForHost
from kumotwist.tls.sts import Finding
from kumotwist.tls.sts_policies import STSPolicies, fetch_policy
from kumotwist.tls.sts_store import PolicyStore

__all__ = ["PolicyService"]

#: Seconds for the connection to one address of a web server.
_CONNECT_TIMEOUT = 10.0


class PolicyService(Service):
    """Finds MTA-STS policies while the node runs.

    @param live: the configuration, which may change.
    @param health: says which sources may be used.
    """

    def __init__(
        self, reactor: Any, live: LiveSettings, health: SourceHealth, state_dir: str
    ) -> None:
        self._reactor = reactor
        self._live = live
        self._health = health
        store = PolicyStore(os.path.join(state_dir, "mta-sts.jsonl"))
        self._policies = STSPolicies(reactor, store, self._look_up, self._fetch)

    def startService(self) -> None:
        """Read the policies that are known."""
        super().startService()  # type: ignore[no-untyped-call]
        self._policies.start()

    def stopService(self) -> None:
        """Stop what is under way."""
        self._policies.stop()
        super().stopService()  # type: ignore[no-untyped-call]

    def find(self, domain: str, site: str, pool: str) -> Deferred[Finding]:
        """Find a domain's policy, if any source of the pool goes by policies. Never fails."""
        paths = self._live.paths
        if any(
            paths.resolve(domain, site, source).enable_mta_sts
            for source in self._live.rotations.sources(pool)
        ):
            return self._policies.policy(domain, pool)
        return succeed(Finding())

    async def _look_up(self, name: str) -> tuple[bytes, ...]:
        found: tuple[bytes, ...] = await self._live.resolver.lookup_text(name)
        return found

    async def _fetch(self, domain: str, pool: str) -> bytes:
        return await fetch_policy(self._reactor, domain, self.endpoint_for(domain, pool))

    def endpoint_for(self, domain: str, pool: str) -> EndpointForHost:
        """The way to a domain's web servers, as mail of a pool travels: from one of its sources."""
        names = self._live.rotations.sources(pool)
        usable = [name for name in names if self._health.usable(name)]
        source = self._live.sources[(usable or names or ["unspecified"])[0]]
        path = self._live.paths.resolve(domain, f"mta-sts.{domain}", source.name)

        def endpoint_for(host: str, port: int) -> IStreamClientEndpoint:
            return NamedHostEndpoint(
                self._live.resolver, host, lambda address: self._way(source, path, address, port)
            )

        return endpoint_for

    def _way(
        self, source: Source, path: PathSettings, address: IPAddress, port: int
    ) -> IStreamClientEndpoint | None:
        if any(address in network for network in path.prohibited_hosts):
            return None
        if path.mta_sts_fetch == "Source":
            if not source.reaches(address):
                return None
            return source.endpoint(self._reactor, address, port, _CONNECT_TIMEOUT)
        direct = (
            TCP4ClientEndpoint if isinstance(address, ipaddress.IPv4Address) else TCP6ClientEndpoint
        )
        endpoint: IStreamClientEndpoint = direct(
            self._reactor, str(address), port, _CONNECT_TIMEOUT
        )
        return endpoint
