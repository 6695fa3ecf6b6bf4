"""The real counterparts: proxies, swaks, Postfix's tools, Exim, OpenSSL, SSH.

Each is started with the smallest configuration that shows its way. What is not installed skips the
test with one line.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
from twisted.trial.unittest import SkipTest, TestCase

from tests.integration.processes import CHECKOUT, Child
from tests.integration.waiting import free_port

__all__ = [
    "PARTS",
    "SEED_HAPROXY_CFG",
    "Part",
    "find",
    "missing_parts",
    "require_root",
    "start_dante",
    "start_exim",
    "start_haproxy",
    "start_microsocks",
    "start_smtp_sink",
    "start_tinyproxy",
    "start_unbound",
]

# Exim is unpacked by `make real-parts`, not installed: it would take Postfix's place.
_EXIM = CHECKOUT / ".real-parts" / "exim4" / "usr" / "sbin"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:{_EXIM}"


@attrs.define(frozen=True)
class Part:
    """A program that the tests need and do not bring.

    @ivar command: its name.
    @ivar package: the Debian package that has it.
    """

    command: str
    package: str


PARTS = (
    Part("haproxy", "haproxy"),
    Part("danted", "dante-server"),
    Part("microsocks", "microsocks"),
    Part("tinyproxy", "tinyproxy-bin"),
    Part("swaks", "swaks"),
    Part("smtp-source", "postfix"),
    Part("smtp-sink", "postfix"),
    Part("openssl", "openssl"),
    Part("curl", "curl"),
    Part("posttls-finger", "postfix"),
    Part("testssl", "testssl.sh"),
    Part("exim4", "exim4-daemon-light"),
    Part("sshd", "openssh-server"),
    Part("ssh", "openssh-client"),
    Part("ssh-keygen", "openssh-client"),
    Part("unbound", "unbound"),
    Part("nsd", "nsd"),
    Part("unbound", "unbound"),
)


def _line(part: Part) -> str:
    return (
        f"missing: {part.command} (Debian package {part.package}); "
        "`make real-parts` installs it, its tests are skipped"
    )


def missing_parts() -> list[str]:
    """One line for each part that is not installed."""
    return [_line(part) for part in PARTS if shutil.which(part.command, path=_PATH) is None]


def find(command: str) -> str:
    """The path of a part's program.

    @raise SkipTest: it is not installed.
    """
    path = shutil.which(command, path=_PATH)
    if path is None:
        raise SkipTest(_line(next(part for part in PARTS if part.command == command)))
    return path


def require_root(why: str) -> None:
    """Skip the test unless it runs as root.

    @param why: what needs it.
    """
    if os.geteuid() != 0:
        raise SkipTest(f"needs root: {why}; run it as root, as .ci/run does")


SEED_HAPROXY_CFG = """\
global
    log stdout  format raw  local0  debug

defaults
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    log global

listen outboundsmtp
    log global
    bind 0:2526 accept-proxy
    mode tcp
    use-server v4 if { src 0.0.0.0/0 }
    use-server v6 if { src ::/0 }
    server v4 0.0.0.0 source 0.0.0.0 usesrc clientip
    server v6 ::: source ::: usesrc clientip
"""
"""KumoMTA's documented configuration of HAProxy as a forward proxy, to the letter."""


async def start_haproxy(test: TestCase, configuration: str | None = None) -> tuple[Child, int]:
    """Start HAProxy as a forward proxy.

    @param configuration: its file, whose port is replaced by a free one; L{SEED_HAPROXY_CFG} if
        absent.
    @return: the process and the port of its C{accept-proxy} listener.
    """
    haproxy = find("haproxy")
    port = free_port()
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    path = directory / "haproxy.cfg"
    text = configuration or SEED_HAPROXY_CFG
    text, number = re.subn(
        r"(?m)^( *bind \S*:)\d+ accept-proxy", rf"\g<1>{port} accept-proxy", text
    )
    assert number == 1, text
    path.write_text(text, encoding="utf-8")
    child = Child(test, "haproxy", [haproxy, "-db", "-V", "-f", str(path)], directory=directory)
    await child.wait_for_listening(port)
    return child, port


def shipped_haproxy_cfg() -> str:
    """The configuration that we ship for HAProxy."""
    return (CHECKOUT / "etc" / "haproxy.cfg").read_text(encoding="utf-8")


_DANTE = """\
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: {method}
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 command: bind connect }}
"""


async def start_dante(test: TestCase) -> tuple[Child, int]:
    """Start Dante on a free port; it lets loopback connect and bind, without login.

    @return: the process and its port.
    """
    danted = find("danted")
    port = free_port()
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    path = directory / "danted.conf"
    user = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
    path.write_text(_DANTE.format(port=port, method="none", user=user), encoding="utf-8")
    command = [danted, "-f", str(path), "-p", str(directory / "danted.pid"), "-N", "1"]
    child = Child(test, "danted", command, directory=directory)
    await child.wait_for_listening(port)
    return child, port


async def start_microsocks(test: TestCase) -> tuple[Child, int]:
    """Start microsocks on a free port, without login.

    @return: the process and its port.
    """
    port = free_port()
    child = Child(test, "microsocks", [find("microsocks"), "-i", "127.0.0.1", "-p", str(port)])
    await child.wait_for_listening(port)
    return child, port


_TINYPROXY = """\
Listen 127.0.0.1
Port {port}
Timeout 60
LogLevel Info
Allow 127.0.0.1
MaxClients 500
"""


async def start_tinyproxy(
    test: TestCase, allowed: int | None, *, login: tuple[str, str] | None = None
) -> tuple[Child, int]:
    """Start tinyproxy on a free port.

    @param allowed: the only port that CONNECT may lead to; any if absent.
    @param login: the user name and password that it wants.
    @return: the process and its port.
    """
    tinyproxy = find("tinyproxy")
    port = free_port()
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    path = directory / "tinyproxy.conf"
    text = _TINYPROXY.format(port=port)
    if allowed is not None:
        text += f"ConnectPort {allowed}\n"
    if login is not None:
        text += "BasicAuth {} {}\n".format(*login)
    path.write_text(text, encoding="utf-8")
    child = Child(test, "tinyproxy", [tinyproxy, "-d", "-c", str(path)], directory=directory)
    await child.wait_for_listening(port)
    return child, port


async def start_smtp_sink(test: TestCase, *options: str) -> tuple[Child, int]:
    """Start Postfix's C{smtp-sink} on a free port, which takes everything and counts.

    @param options: what it does wrong, if anything.
    @return: the process and its port.
    """
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    command = [find("smtp-sink"), *user, "-c", *options, f"127.0.0.1:{port}", "512"]
    child = Child(test, "smtp-sink", command)
    await child.wait_for_listening(port)
    return child, port


_UNBOUND = """\
server:
    interface: 127.0.0.1
    port: {port}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    chroot: ""
    username: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    module-config: "iterator"
    num-threads: 1
    local-zone: "." static
{zones}
remote-control:
    control-enable: no
"""


async def start_unbound(test: TestCase, zones: Sequence[str]) -> tuple[Child, int]:
    """Start the name server Unbound on a free port; it asks nobody else.

    @param zones: what it knows: C{local-zone:} and C{local-data:} lines of its configuration. Other
        names do not exist.
    @return: the process and its port.
    """
    unbound = find("unbound")
    port = free_port()
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    path = directory / "unbound.conf"
    lines = "\n".join(f"    {line}" for line in zones)
    path.write_text(_UNBOUND.format(port=port, directory=directory, zones=lines), encoding="utf-8")
    child = Child(test, "unbound", [unbound, "-d", "-c", str(path)], directory=directory)
    await child.wait_for_listening(port)
    return child, port


_EXIM_CONF = """\
exim_path = {home}/exim4
spool_directory = {home}/spool
log_file_path = {home}/log/%s
pid_file_path = {home}/exim.pid
primary_hostname = exim.example.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = accept

begin acl
rcpt:
  deny local_parts = nobody
       message = nobody lives here
  defer local_parts = later
       message = come back later
  accept

begin routers
here:
  driver = accept
  domains = exim.test
  transport = file
onward:
  driver = manualroute
  domains = !exim.test
  route_list = * 127.0.0.1::{onward}
  self = send
  transport = smtp

begin transports
file:
  driver = appendfile
  file = {home}/mail/all
  user = Debian-exim
smtp:
  driver = smtp
  allow_localhost
  hosts_try_fastopen =
  hosts_try_chunking = *

begin retry
* * F,1h,1m
"""


async def start_exim(test: TestCase, onward: int) -> tuple[Child, int, Path]:
    """Start Exim on a free port: mail for C{exim.test} goes into a file, the rest onward.

    It refuses C{nobody} and puts C{later} off.

    @param onward: the port on 127.0.0.1 that other mail goes to.
    @return: the process, its port, and the file that mail goes into.
    """
    exim = find("exim4")
    require_root("Exim changes to a user of its own")
    # That user must be able to reach all of it, wherever the tests run.
    home = Path(tempfile.mkdtemp(prefix="exim"))
    test.addCleanup(shutil.rmtree, home, ignore_errors=True)
    shutil.copy(exim, home / "exim4")
    for name in ("spool", "log", "mail"):
        (home / name).mkdir()
        shutil.chown(home / name, "Debian-exim", "Debian-exim")
    home.chmod(0o755)
    port = free_port()
    path = home / "exim.conf"
    path.write_text(_EXIM_CONF.format(home=home, port=port, onward=onward), encoding="ascii")
    command = [str(home / "exim4"), "-C", str(path), "-bdf", "-oX", str(port)]
    child = Child(test, "exim", command)
    await child.wait_for_listening(port)
    return child, port, home / "mail" / "all"
