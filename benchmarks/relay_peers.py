"""The relays that are compared, each with a private configuration, queue and port of loopback.

Each takes mail from loopback, keeps it on disk, and delivers everything to one address. Defaults
otherwise, but for what a question varies: connections that are reused or not, and TLS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks.relay_tables import Group
from benchmarks.server import ROOT, SEARCH_PATH, Server, free_port, twistd

__all__ = ["PEERS", "Shape", "UnavailableError", "running_relays"]

#: What the benchmark installs for itself stays here from one run to the next.
_INSTALLED = ROOT / "var" / "bench-peers"


class UnavailableError(Exception):
    """A relay cannot be measured on this machine; the text says why."""


@attrs.define(frozen=True)
class Shape:
    """What a question wants of every relay.

    @ivar sink: the port of 127.0.0.1 that takes everything.
    @ivar reuse: whether a connection may carry several messages on the way out.
    @ivar certificate: a PEM file with key and certificate, if the relay offers and uses STARTTLS.
    @ivar source: the keys of our C{[source:out]}.
    @ivar more: further sections of our configuration.
    @ivar pool: the entries of our C{[pool:out]}.
    @ivar state: our state directory, if it is there already.
    @ivar workers: our processes that deliver mail.
    """

    sink: int
    reuse: bool = True
    certificate: Path | None = None
    source: str = "source_address = 127.0.0.1"
    more: str = ""
    pool: str = "out = 1"
    state: Path | None = None
    workers: int = 1


# -- kumotwist ---------------------------------------------------------------------------------

_KUMO = """\
[kumo]
hostname = mta.example.test
state_dir = {state}
workers = {workers}

[listener:in]
listen = 127.0.0.1:{port}
{listener}
[pool:out]
{pool}

[source:out]
{source}

[path:default]
enable_tls = {tls}
{path}
[queue:default]
egress_pool = out
route = [127.0.0.1]:{sink}

{more}
"""


def _start_kumotwist(
    directory: Path, shape: Shape, root: Path = ROOT, reactor: str = "", name: str = "kumotwist"
) -> Server:
    port = free_port()
    listener = ""
    if shape.certificate is not None:
        listener = f"tls_certificate = {shape.certificate}\ntls_private_key = {shape.certificate}\n"
    configuration = directory / "kumo.ini"
    text = _KUMO.format(
        state=shape.state or directory / "state",
        port=port,
        sink=shape.sink,
        listener=listener,
        source=shape.source,
        pool=shape.pool,
        more=shape.more,
        workers=shape.workers,
        tls="OpportunisticInsecure" if shape.certificate else "Disabled",
        path="" if shape.reuse else "max_deliveries_per_connection = 1\n",
    )
    configuration.write_text(text, encoding="utf-8")
    options = [f"--reactor={reactor}"] if reactor else []
    command = twistd(*options, "kumo", "-c", str(configuration))
    return Server(name, port, command, directory, root)


def _start_kumo_epoll(directory: Path, shape: Shape) -> Server:
    return _start_kumotwist(directory, shape, reactor="kumo-epoll", name="kumotwist kumo-epoll")


# -- Postfix -----------------------------------------------------------------------------------

_POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
myhostname = mta.example.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
maillog_file = {directory}/postfix.log
maillog_file_prefixes = {directory}
smtpd_tls_security_level = {tls}
smtpd_tls_chain_files = {certificate}
smtp_tls_security_level = {tls}
smtp_connection_cache_on_demand = {reuse}
"""

# As in Debian's master.cf, without chroot and the services of other transports.
_POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
local     unix  - n n -     - local
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def _start_postfix(directory: Path, shape: Shape) -> Server:
    program = shutil.which("postfix", path=SEARCH_PATH)
    if program is None:
        raise UnavailableError("not installed (make real-parts)")
    if os.geteuid() != 0:
        raise UnavailableError("can be started by root only")
    asked = [shutil.which("postconf", path=SEARCH_PATH) or "postconf", "-dh", "daemon_directory"]
    daemons = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    port = free_port()
    for name in ("queue", "data"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix")
    # Its daemons run as the user postfix and have to come as far as their queue.
    directory.chmod(0o755)
    (directory / "main.cf").write_text(
        _POSTFIX_MAIN.format(
            directory=directory,
            daemons=daemons,
            sink=shape.sink,
            tls="may" if shape.certificate else "none",
            certificate=shape.certificate or "",
            reuse="yes" if shape.reuse else "no",
        )
    )
    (directory / "master.cf").write_text(_POSTFIX_MASTER.format(port=port))
    return Server("postfix", port, [program, "-c", str(directory), "start-fg"], directory)


# -- python-slimta -----------------------------------------------------------------------------

# Its own disk storage needs pyaio, which newer Pythons cannot install; what this does instead is
# the same, two files for each message that are written and renamed, not synced.
_SLIMTA = """
import os, pickle, ssl, sys, uuid
import gevent.monkey; gevent.monkey.patch_all()
from slimta.edge.smtp import SmtpEdge
from slimta.policy.headers import AddDateHeader, AddMessageIdHeader, AddReceivedHeader
from slimta.queue import Queue, QueueStorage
from slimta.relay.smtp.static import StaticSmtpRelay

directory, port, sink, idle, certificate = sys.argv[1:]

class Files(QueueStorage):
    def _path(self, id, kind):
        return os.path.join(directory, id + kind)
    def _dump(self, id, kind, value):
        with open(self._path(id, ".tmp"), "wb") as file:
            pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
        os.rename(self._path(id, ".tmp"), self._path(id, kind))
    def _load(self, id, kind):
        with open(self._path(id, kind), "rb") as file:
            return pickle.load(file)
    def write(self, envelope, timestamp):
        id = uuid.uuid4().hex
        self._dump(id, ".env", envelope)
        self._dump(id, ".meta", {"timestamp": timestamp, "attempts": 0})
        return id
    def set_timestamp(self, id, timestamp):
        self._dump(id, ".meta", dict(self._load(id, ".meta"), timestamp=timestamp))
    def increment_attempts(self, id):
        meta = self._load(id, ".meta")
        meta["attempts"] += 1
        self._dump(id, ".meta", meta)
        return meta["attempts"]
    def set_recipients_delivered(self, id, rcpt_indexes):
        envelope = self._load(id, ".env")
        self._remove_delivered_rcpts(envelope, rcpt_indexes)
        self._dump(id, ".env", envelope)
    def load(self):
        for name in os.listdir(directory):
            if name.endswith(".meta"):
                yield self._load(name[:-5], ".meta")["timestamp"], name[:-5]
    def get(self, id):
        return self._load(id, ".env"), self._load(id, ".meta")["attempts"]
    def remove(self, id):
        os.unlink(self._path(id, ".meta"))
        os.unlink(self._path(id, ".env"))

edge_context, relay_options = None, {"tls": False}
if certificate:
    edge_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    edge_context.load_cert_chain(certificate)
    relay_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    relay_context.check_hostname, relay_context.verify_mode = False, ssl.CERT_NONE
    relay_options = {"context": relay_context}
relay = StaticSmtpRelay("127.0.0.1", int(sink), pool_size=20, ehlo_as="mta.example.test",
                        idle_timeout=float(idle) or None)
queue = Queue(Files(), relay, relay_pool=50)
for policy in (AddDateHeader(), AddMessageIdHeader(), AddReceivedHeader()):
    queue.add_policy(policy)
queue.start()
edge = SmtpEdge(("127.0.0.1", int(port)), queue, context=edge_context, hostname="mta.example.test")
edge.start()
edge.get()
"""

_SLIMTA_PACKAGES = ("python-slimta==5.0.5", "zope.interface<7", "zope.event<5", "setuptools<74")


def _start_slimta(directory: Path, shape: Shape) -> Server:
    home = _INSTALLED / "slimta"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        _install([sys.executable, "-m", "venv", str(home)])
        _install([str(python), "-m", "pip", "install", "--quiet", *_SLIMTA_PACKAGES])
        _install([str(python), "-c", "import slimta.edge.smtp, slimta.relay.smtp.static"])
        (home / "installed").touch()
    port = free_port()
    script = directory / "relay.py"
    script.write_text(_SLIMTA, encoding="utf-8")
    spool = directory / "spool"
    spool.mkdir()
    arguments = (spool, port, shape.sink, 30 if shape.reuse else 0, shape.certificate or "")
    command = [str(python), str(script), *map(str, arguments)]
    return Server("slimta", port, command, directory)


# -- Haraka ------------------------------------------------------------------------------------

_HARAKA_PLUGIN = """\
exports.hook_connect = (next, connection) => { connection.relaying = true; next() }
exports.hook_rcpt = (next) => next(OK)
exports.hook_get_mx = (next) => next(OK, {priority: 0, exchange: '127.0.0.1', port: %d})
"""


def _start_haraka(directory: Path, shape: Shape) -> Server:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise UnavailableError("node or npm is not installed")
    home = _INSTALLED / "haraka"
    program = home / "node_modules" / "Haraka" / "bin" / "haraka"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--prefix", str(home)]
        _install([npm, "install", *options, "Haraka@3.3.4"])
    port = free_port()
    config, plugins = directory / "config", directory / "plugins"
    shutil.copytree(program.parents[1] / "config", config)
    for each in (plugins, directory / "queue"):
        each.mkdir()
    (plugins / "bench.js").write_text(_HARAKA_PLUGIN % shape.sink)
    tls = shape.certificate is not None
    (config / "plugins").write_text("tls\nbench\n" if tls else "bench\n")
    (config / "smtp.ini").write_text(f"listen=127.0.0.1:{port}\nnodes=0\n")
    (config / "me").write_text("mta.example.test\n")
    (config / "log.ini").write_text("level=notice\n")
    local = f"local_mx_ok=true\nenable_tls={str(tls).lower()}\n"
    (config / "outbound.ini").write_text(local)
    if tls:
        names = f"key={shape.certificate}\ncert={shape.certificate}\n"
        (config / "tls.ini").write_text(names + "[outbound]\nrejectUnauthorized=false\n")
    return Server("haraka", port, [node, str(program), "-c", str(directory)], directory)


def _install(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"cannot be installed: {' '.join(command)}: {done.stderr[-400:]}")


# -- all of them -------------------------------------------------------------------------------

#: How each is started, by the name that the command line knows.
PEERS: dict[str, Callable[[Path, Shape], Server]] = {
    "kumotwist": _start_kumotwist,
    "kumo-epoll": _start_kumo_epoll,
    "postfix": _start_postfix,
    "slimta": _start_slimta,
    "haraka": _start_haraka,
}


def _start(name: str, directory: Path, shape: Shape) -> Server:
    label, _, workers = name.rpartition(":")
    if label and workers.isdigit():
        server = _start(label, directory, attrs.evolve(shape, workers=int(workers)))
        server.name = f"{server.name}, {workers} workers"
        return server
    start = PEERS.get(name)
    if start is not None:
        return start(directory, shape)
    checkout, _, reactor = name.partition("@")
    if not (Path(checkout) / "kumotwist").is_dir():
        raise UnavailableError(f"is not one of {', '.join(PEERS)}, nor a checkout of kumotwist")
    root = Path(checkout).resolve()
    return _start_kumotwist(directory, shape, root, reactor, f"{root.name} {reactor}".strip())


@contextlib.contextmanager
def running_relays(
    directory: Path, names: Sequence[str], shape: Shape, group: Group, *, wait: bool = True
) -> Iterator[list[Server]]:
    """Start the relays that are named and available; stop them at the end.

    @param names: of L{PEERS}, or directories of other checkouts of kumotwist, for comparisons of
        two versions; with C{@kumo-epoll} behind it a checkout runs with that reactor. C{:2} at the
        end of one of ours gives it two workers.
    @param group: is told what does not start.
    @param wait: whether they are to take mail when they are given.
    """
    servers: list[Server] = []
    try:
        for name in names:
            home = directory / f"relay-{len(servers)}-{os.urandom(2).hex()}"
            home.mkdir()
            directory.chmod(0o755)
            try:
                servers.append(_start(name, home, shape))
            except UnavailableError as error:
                group.miss(name, str(error), failed=False)
        for server in list(servers) if wait else ():
            try:
                server.wait(b"220")
            except RuntimeError as error:
                servers.remove(server)
                server.stop()
                group.miss(server.name, str(error))
        yield servers
    finally:
        for server in servers:
            server.stop()
