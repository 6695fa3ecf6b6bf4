"""What DNS blocklists say of an address, and whether a list can be believed at all (RFC 5782).

Lists die, are sold, or refuse to answer whoever asks too much, and then say yes, or something, to
every question. So each list is asked about two addresses first: 127.0.0.2, which must be on it, and
127.0.0.1, which must not (RFC 5782, 5). One that fails is unusable and lists nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address
from types import MappingProxyType

import attrs
from twisted.internet.defer import Deferred, gatherResults

from kumotwist.check.addresses import why_not_public
from kumotwist.check.findings import Finding, Status
from kumotwist.dns.errors import DNSError
from kumotwist.interfaces import IResolver
from kumotwist.settings.types import IPAddress
from kumotwist.wire.smtp.replies import one_line

__all__ = ["Blocklist", "Blocklists", "read_codes"]

_LISTED = MappingProxyType(
    {4: ipaddress.ip_address("127.0.0.2"), 6: ipaddress.ip_address("::ffff:7f00:2")}
)
_NOT_LISTED = MappingProxyType(
    {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::ffff:7f00:1")}
)
_CODES = ipaddress.ip_network("127.0.0.0/8")
#: What Spamhaus answers to a query that it does not answer; others have followed.
_REFUSALS = ipaddress.ip_network("127.255.255.0/24")


@attrs.define(frozen=True)
class Blocklist:
    """A list, and whether it can be used.

    @ivar zone: its domain.
    @ivar version: 4 or 6: the family that it was tried for.
    @ivar problem: why it cannot be used; empty if it can.
    """

    zone: str
    version: int
    problem: str = ""


def read_codes(codes: Sequence[IPv4Address]) -> tuple[bool, str]:
    """Judge a list's answer.

    @return: whether the address is listed, and why the answer means nothing, if it does not.
    """
    refused = [code for code in codes if code in _REFUSALS]
    if refused:
        return False, f"it refuses our queries ({refused[0]})"
    nonsense = [code for code in codes if code not in _CODES]
    if nonsense:
        return False, f"it answers {nonsense[0]}, which no blocklist does"
    return bool(codes), ""


class Blocklists:
    """Some lists, each tried once for each family.

    @param zones: their domains.
    """

    def __init__(self, resolver: IResolver, zones: Sequence[str]) -> None:
        self._resolver = resolver
        self._zones = tuple(dict.fromkeys(zones))
        self._tried: dict[tuple[str, int], Blocklist] = {}

    @property
    def tried(self) -> tuple[Blocklist, ...]:
        """The lists that L{examine} has tried."""
        return tuple(self._tried.values())

    async def examine(self, version: int) -> None:
        """Find out which lists can be used for a family."""
        zones = [zone for zone in self._zones if (zone, version) not in self._tried]
        trying = [Deferred.fromCoroutine(self._examine(zone, version)) for zone in zones]
        for found in await gatherResults(trying):
            self._tried[found.zone, version] = found

    async def _examine(self, zone: str, version: int) -> Blocklist:
        listed, problem = await self._ask(_LISTED[version], zone)
        if not problem and not listed:
            dead = "it is dead" if version == 4 else "it is dead, or knows no IPv6"
            problem = f"it does not list {_LISTED[version]}, as every list must: {dead}"
        if not problem:
            listed, problem = await self._ask(_NOT_LISTED[version], zone)
            if listed:
                problem = f"it lists {_NOT_LISTED[version]}, so it lists the world"
        return Blocklist(zone, version, problem)

    async def _ask(self, address: IPAddress, zone: str) -> tuple[bool, str]:
        try:
            codes = await self._resolver.lookup_listing(address, zone)
        except DNSError as error:
            return False, f"it cannot be asked: {one_line(error.text, 200)}"
        return read_codes(codes)

    async def findings(self, address: IPAddress | None) -> list[Finding]:
        """Answer C{blocklist} for an address, once for each list.

        @param address: the address that the world sees; L{None} if it is not known.
        """
        why = "nobody knows the address" if address is None else why_not_public(address)
        if address is None or why:
            return [Finding("blocklist", Status.SKIPPED, why, zone) for zone in self._zones]
        await self.examine(address.version)
        asking = [Deferred.fromCoroutine(self._finding(address, zone)) for zone in self._zones]
        return list(await gatherResults(asking))

    async def _finding(self, address: IPAddress, zone: str) -> Finding:
        known = self._tried[zone, address.version]
        if known.problem:
            text = f"{zone} is unusable: {known.problem}"
            return Finding("blocklist", Status.WARNING, text, zone)
        try:
            codes = await self._resolver.lookup_listing(address, zone)
        except DNSError as error:
            text = f"{zone} does not answer for {address}: {one_line(error.text, 200)}"
            return Finding("blocklist", Status.WARNING, text, zone)
        listed, problem = read_codes(codes)
        facts = {"codes": tuple(map(str, codes))}
        if problem:
            text = f"{zone} is unusable: {problem}"
            return Finding("blocklist", Status.WARNING, text, zone, facts=facts)
        if listed:
            text = f"{address} is on {zone} ({', '.join(facts['codes'])})"
            return Finding("blocklist", Status.FAILURE, text, zone, facts=facts)
        return Finding("blocklist", Status.OK, f"{address} is not on {zone}", zone, facts=facts)
