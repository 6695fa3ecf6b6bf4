"""A small internet: two networks of mail hosts, a router before them, and two proxies that own the
addresses that mail leaves from (L{World}).

::

    mta ─┬─ 10.99.1.0/24 ─ socks ─ 192.0.2.11, 2001:db8:c::11 ─┐          ┌─ neta 198.51.100.0/24
         ├─ 10.99.2.0/24 ─ hapr ── 192.0.2.12, 2001:db8:c::12 ─┴─ router ─┤       2001:db8:a::/64
         └─ 10.99.3.0/24 ─ dns                                            └─ netb 203.0.113.0/24
                                                                                  2001:db8:b::/64

The MTA's machine has no IPv6 and no way to anything but the proxies and the name server.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
from twisted.trial.unittest import TestCase

from tests.integration.nameservers import NameServers, Zone
from tests.integration.parts import find, shipped_haproxy_cfg
from tests.integration.processes import Child
from tests.integration.program import twistd
from tests.integration.sink import Act, Answers, Session, Sink, start_sink
from tests.integration.waiting import accepts_connections, until
from tests.netns.namespaces import Machines, on

__all__ = ["HOSTS", "SOURCES", "ZONES", "MailHost", "Source", "World", "at"]


@attrs.define(frozen=True)
class Source:
    """One way out, as the records name it.

    @ivar name: of the source.
    @ivar address: the address that its mail leaves from; its name is that of the source, below
        C{origin.example}.
    @ivar server: the proxy that owns the address.
    @ivar protocol: how the proxy is spoken to.
    """

    name: str
    address: str
    server: str
    protocol: str


SOURCES = (
    Source("socks-4", "192.0.2.11", "10.99.1.1:5000", "socks5"),
    Source("socks-6", "2001:db8:c::11", "10.99.1.1:5000", "socks5"),
    Source("haproxy-4", "192.0.2.12", "10.99.2.1:2527", "haproxy"),
    Source("haproxy-6", "2001:db8:c::12", "10.99.2.1:2527", "haproxy"),
)


@attrs.define(frozen=True)
class MailHost:
    """A mail host of one of the networks.

    @ivar network: the machine that it lives on.
    @ivar addresses: IPv4, IPv6 or both.
    @ivar down: whether what is sent to it disappears.
    """

    network: str
    addresses: tuple[str, ...]
    down: bool = False


HOSTS = {
    "a1": MailHost("neta", ("198.51.100.1", "2001:db8:a::1")),
    "a2": MailHost("neta", ("198.51.100.2", "2001:db8:a::2")),
    "b1": MailHost("netb", ("203.0.113.1", "2001:db8:b::1")),
    "b2": MailHost("netb", ("203.0.113.2", "2001:db8:b::2")),
    "four": MailHost("neta", ("198.51.100.4",)),
    "six": MailHost("netb", ("2001:db8:b::6",)),
    "implicit": MailHost("netb", ("203.0.113.7", "2001:db8:b::7")),
    "slow": MailHost("netb", ("203.0.113.8", "2001:db8:b::8")),
    "grey": MailHost("neta", ("198.51.100.9", "2001:db8:a::9")),
    "down": MailHost("neta", ("198.51.100.66", "2001:db8:a::66"), down=True),
}


def _addresses(name: str, host: MailHost) -> str:
    kinds = (("AAAA" if ":" in address else "A", address) for address in host.addresses)
    return "".join(f"{name} IN {kind} {address}\n" for kind, address in kinds)


def _domain(name: str, *exchangers: str) -> Zone:
    """A domain whose MX records are C{PREFERENCE HOST}."""
    lines = (f"@ IN MX {exchanger}.hosts.example.\n" for exchanger in exchangers)
    return Zone(f"{name}.example", "".join(lines), signed=False)


_NAMES = "".join(
    f"{one.name} IN {'AAAA' if ':' in one.address else 'A'} {one.address}\n" for one in SOURCES
)


def _reverse_zones() -> list[Zone]:
    """The names of the addresses that mail leaves from."""
    zones = []
    for parent in ("2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"):
        lines = ""
        for one in SOURCES:
            name = ipaddress.ip_address(one.address).reverse_pointer
            if name.endswith(parent):
                lines += f"{name}. IN PTR {one.name}.origin.example.\n"
        zones.append(Zone(parent, lines, signed=False))
    return zones


ZONES = (
    Zone("hosts.example", "".join(_addresses(*each) for each in HOSTS.items()), signed=False),
    _domain("ordered", "20 b1", "10 a1"),
    _domain("equal", "10 a1", "10 b2", "20 a2"),
    _domain("four", "10 four"),
    _domain("six", "10 six"),
    Zone("implicit.example", _addresses("@", HOSTS["implicit"]), signed=False),
    _domain("down", "10 down", "20 b2"),
    _domain("slow", "10 slow"),
    _domain("grey", "10 grey"),
    _domain("dead", "10 down"),
    Zone("origin.example", "@ IN MX 10 b1.hosts.example.\n" + _NAMES, signed=False),
    *_reverse_zones(),
    Zone("null.example", "@ IN MX 0 .\n", signed=False),
)

_PROXY = """\
[proxy:main]
listen = 10.99.1.1:5000

[proxy-rule:the-mta]
clients = 10.99.1.0/24
sources = 192.0.2.11, 2001:db8:c::11
action = allow

[proxy-rule:nothing-else]
action = deny
"""


def at(machine: str) -> list[str]:
    """What stands before the command line of a program on a machine."""
    return ["nsenter", f"--net=/run/netns/{machine}", "--"]


def _greylisting(seconds: float) -> Answers:
    """Refuse each pair of client and recipient until it has been known for a time."""
    known: dict[tuple[str, str], float] = {}

    def answers(session: Session, verb: str, argument: str) -> Act | str | None:
        if verb != "RCPT":
            return None
        first = known.setdefault((session.peer, argument), time.monotonic())
        if time.monotonic() - first >= seconds:
            return None
        return "450 4.7.1 Greylisted, come back later"

    return answers


def _slow(seconds: float) -> Answers:
    """Answer everything late."""
    late = {"GREETING": "220 slow", "EHLO": "250 slow", "BODY": "250 2.0.0 Taken, at last"}

    def answers(session: Session, verb: str, argument: str) -> Act | str | None:
        return Act(late[verb], delay=seconds) if verb in late else None

    return answers


def _usual(session: Session, verb: str, argument: str) -> Act | str | None:
    """Take all mail but that for nobody."""
    if verb == "RCPT" and argument.startswith("TO:<nobody"):
        return "550 5.1.1 No such user here"
    return None


class World:
    """All machines of it, and what runs on them.

    @ivar mta: the machine of the MTA.
    @ivar sinks: the mail host behind each address.
    @ivar processes: name servers and proxies, by the names of their programs.
    """

    def __init__(self, test: TestCase) -> None:
        """Make the machines and lay the cables; L{start} starts what runs on them."""
        self._test = test
        self._machines = machines = Machines(test)
        names = ("mta", "socks", "hapr", "dns", "router", "neta", "netb")
        self._at = {name: machines.add(name) for name in names}
        self.mta = self._at["mta"]
        self.sinks: dict[str, Sink] = {}
        self.processes: dict[str, Child] = {}
        for number, name in enumerate(("socks", "hapr", "dns"), 1):
            machines.join(self.mta, f"10.99.{number}.2/24", self._at[name], f"10.99.{number}.1/24")
        router = self._at["router"]
        machines.forward(router)
        for number, name in enumerate(("socks", "hapr", "neta", "netb"), 1):
            machine = self._at[name]
            near, far = (f"10.98.{number}.{n}/24, fd98:{number}::{n}/64" for n in (1, 2))
            machines.join(router, near, machine, far)
            machines.route(machine, "0.0.0.0/0", f"10.98.{number}.1")
            machines.route(machine, "::/0", f"fd98:{number}::1")
            for address in self._owned(name):
                machines.give(machine, address)
                way = f"fd98:{number}::2" if ":" in address else f"10.98.{number}.2"
                machines.route(router, address, way)
        for host in HOSTS.values():
            for address in host.addresses if host.down else ():
                machines.swallow(router, address)

    def _owned(self, name: str) -> list[str]:
        """The addresses that a machine has for the world."""
        if name in ("socks", "hapr"):
            return [one.address for one in SOURCES if one.name.startswith(name)]
        hosts = [host for host in HOSTS.values() if host.network == name and not host.down]
        return [address for host in hosts for address in host.addresses]

    async def start(self) -> None:
        """Start name servers, proxies and mail hosts; come back when they can be used."""
        for name, host in HOSTS.items():
            answers = {"slow": _slow(0.7), "grey": _greylisting(1.0)}.get(name, _usual)
            for address in () if host.down else host.addresses:
                self.sinks[address] = sink = self._listen(host.network, address)
                sink.answers = answers
        await self._start_echo()
        await self._start_name_servers()
        await self.start_kumoproxy()
        await self.start_haproxy()

    def _listen(self, network: str, address: str) -> Sink:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listen: Callable[[], socket.socket] = partial(
            socket.create_server, (address, 25), family=family, backlog=128
        )
        handle = on(self._at[network], listen)
        return start_sink(self._test, handle=handle, host=address, port=25)

    async def _start_echo(self) -> None:
        """Start a sink of ours at each address of C{a1}; it tells clients where they come from."""
        for address in HOSTS["a1"].addresses:
            endpoint = f"[{address}]:2525" if ":" in address else f"{address}:2525"
            command = twistd("kumosink", "--listen", endpoint)
            await self._run(f"echo {address}", "neta", command, address, 2525)

    async def _start_name_servers(self) -> None:
        servers = NameServers(self._directory(), 5353, 53, "10.99.3.1")
        servers.write(ZONES)
        listening = {"nsd": ("127.0.0.1", 5353), "unbound": ("10.99.3.1", 53)}
        for name, command in servers.commands().items():
            await self._run(name, "dns", command, *listening[name])

    async def start_kumoproxy(self) -> Child:
        """Start the proxy of the sources C{socks-4} and C{socks-6}."""
        path = self._directory(make=True) / "proxy.ini"
        path.write_text(_PROXY, encoding="utf-8")
        command = twistd("kumoproxy", "-c", str(path))
        return await self._run("kumoproxy", "socks", command, "10.99.1.1", 5000)

    async def start_haproxy(self) -> Child:
        """Start the proxy of the sources C{haproxy-4} and C{haproxy-6}."""
        path = self._directory(make=True) / "haproxy.cfg"
        text = re.sub(r"bind \S+", "bind 10.99.2.1:2527", shipped_haproxy_cfg())
        path.write_text(text, encoding="utf-8")
        command = [find("haproxy"), "-db", "-V", "-f", str(path)]
        return await self._run("haproxy", "hapr", command, "10.99.2.1", 2527)

    def _directory(self, *, make: bool = False) -> Path:
        path = Path(self._test.mktemp()).absolute()
        if make:
            path.mkdir(parents=True)
        return path

    async def _run(self, name: str, where: str, command: list[str], host: str, port: int) -> Child:
        """Run a program on a machine; wait until it listens there."""
        machine = self._at[where]
        child = Child(self._test, name, [*at(machine), *command])
        self.processes[name] = child

        def ready() -> bool:
            if not child.running:
                raise child.complain(f"ended with {child.process.returncode}")
            return on(machine, partial(accepts_connections, host, port))

        await until(ready, lambda: str(child.complain("does not listen")), 30)
        return child
