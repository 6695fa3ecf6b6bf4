"""Real name servers: zones that the test writes and signs, NSD that serves them, and Unbound that
validates them under trust anchors of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import TestCase

from tests.integration.parts import find
from tests.integration.processes import Child
from tests.integration.waiting import free_port

__all__ = ["NameServers", "Zone", "start_name_servers"]

_NSD = """\
server:
    ip-address: 127.0.0.1@{authority}
    do-ip6: no
    username: ""
    zonesdir: "{directory}"
    database: ""
    zonelistfile: "{directory}/zone.list"
    xfrdfile: "{directory}/xfrd.state"
    xfrdir: "{directory}"
    pidfile: "{directory}/nsd.pid"
    server-count: 1
    rrl-ratelimit: 0
remote-control:
    control-enable: no
"""

_UNBOUND = """\
server:
    interface: {host}@{resolver}
    access-control: 0.0.0.0/0 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: "{directory}/unbound.pid"
    use-syslog: no
    logfile: ""
    num-threads: 1
    do-ip6: no
    do-not-query-localhost: no
    qname-minimisation: no
    module-config: "validator iterator"
    val-log-level: 1
remote-control:
    control-enable: no
"""


@attrs.define(frozen=True)
class Zone:
    """A zone for the test's name server.

    @ivar name: its name, without a final dot.
    @ivar records: its records in zone file syntax, names relative to it; SOA and NS are added.
    @ivar signed: whether it is signed, and the resolver has a trust anchor for it.
    @ivar damaged: types of which a signature is spoilt after signing.
    @ivar expired: whether the signatures are from long ago.
    """

    name: str
    records: str
    signed: bool = True
    damaged: Sequence[str] = ()
    expired: bool = False


def _signed(zone: Zone) -> tuple[str, str]:
    """The zone's text and, for a signed one, its trust anchor."""
    head = f"@ 60 IN SOA ns.{zone.name}. me.{zone.name}. 1 3600 600 86400 60\n"
    head += f"@ 60 IN NS ns.{zone.name}.\n"
    text = "$TTL 60\n" + head + "ns IN A 127.0.0.1\n" + zone.records
    parsed = dns.zone.from_text(text, zone.name + ".", relativize=False)
    if not zone.signed:
        return parsed.to_text(), ""
    algorithm = dns.dnssectypes.Algorithm.ECDSAP256SHA256
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), algorithm, flags=257)
    now = datetime.now(UTC)
    begin, end = now - timedelta(days=2), now + timedelta(days=20)
    if zone.expired:
        begin, end = now - timedelta(days=60), now - timedelta(days=30)
    dns.dnssec.sign_zone(
        parsed, keys=[(key, public)], inception=begin, expiration=end, add_dnskey=True
    )
    for node in parsed.nodes.values():
        for rdataset in node.rdatasets:
            covered = dns.rdatatype.to_text(rdataset.covers)
            if rdataset.rdtype == dns.rdatatype.RRSIG and covered in zone.damaged:
                for record in list(rdataset):
                    spoilt = bytes([record.signature[0] ^ 1]) + record.signature[1:]
                    rdataset.discard(record)
                    rdataset.add(record.replace(signature=spoilt), rdataset.ttl)
    name = dns.name.from_text(zone.name)
    digest = dns.dnssec.make_ds(name, public, "SHA256")
    return parsed.to_text(), f"{name} DS {digest}"


@attrs.define(frozen=True)
class NameServers:
    """The files of a NSD and of an Unbound that asks it, and how they are started.

    @ivar directory: where the files are.
    @ivar authority: NSD's port on 127.0.0.1, which belongs to whatever machine runs both.
    @ivar resolver: Unbound's port.
    @ivar host: the IPv4 address that Unbound listens on.
    """

    directory: Path
    authority: int
    resolver: int
    host: str = "127.0.0.1"

    def write(self, zones: Sequence[Zone]) -> None:
        """Write the zones and the configurations."""
        self.directory.mkdir(parents=True)
        facts = attrs.asdict(self)
        nsd_conf, unbound_conf = _NSD.format(**facts), _UNBOUND.format(**facts)
        anchors = stubs = ""
        for zone in zones:
            text, anchor = _signed(zone)
            (self.directory / f"{zone.name}.zone").write_text(text, encoding="ascii")
            nsd_conf += f"zone:\n    name: {zone.name}\n    zonefile: {zone.name}.zone\n"
            stubs += f"stub-zone:\n    name: {zone.name}\n"
            stubs += f"    stub-addr: 127.0.0.1@{self.authority}\n"
            # Unbound answers for documentation's networks itself unless it is told not to.
            if zone.name.endswith(".arpa"):
                anchors += f'server:\n    local-zone: "{zone.name}." nodefault\n'
            if anchor:
                anchors += f'server:\n    trust-anchor: "{anchor}"\n'
        (self.directory / "nsd.conf").write_text(nsd_conf, encoding="ascii")
        (self.directory / "unbound.conf").write_text(
            unbound_conf + anchors + stubs, encoding="ascii"
        )

    def commands(self) -> dict[str, list[str]]:
        """The command lines of both, by their names.

        @raise SkipTest: one is not installed.
        """
        return {
            name: [find(name), "-d", "-c", str(self.directory / f"{name}.conf")]
            for name in ("nsd", "unbound")
        }


async def start_name_servers(test: TestCase, zones: Sequence[Zone]) -> int:
    """Serve zones, and resolve them with validation.

    @return: the resolver's port on 127.0.0.1, UDP and TCP.
    """
    servers = NameServers(Path(test.mktemp()).absolute(), free_port(), free_port())
    servers.write(zones)
    ports = {"nsd": servers.authority, "unbound": servers.resolver}
    for name, command in servers.commands().items():
        child = Child(test, name, command, directory=servers.directory)
        await child.wait_for_listening(ports[name])
    return servers.resolver
