"""The SOCKS5 servers that are compared, each started on a private port of loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Server", "running_servers", "start_kumoproxy"]

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_TICKS = os.sysconf("SC_CLK_TCK")

_KUMOPROXY = """\
[proxy:bench]
listen = 127.0.0.1:{port}
timeout = {timeout}

[proxy-rule:loopback]
destinations = 127.0.0.0/8
ports = 1-65535
action = allow
"""

_DANTE = """\
logoutput: {directory}/danted.log
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 command: connect }}
"""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _facts(pid: int) -> list[str]:
    """The fields of C{/proc/PID/stat} behind the command's name: state, parent, …"""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


class Server:
    """A SOCKS5 server that runs.

    @ivar name: how the table calls it.
    @ivar port: where it listens on 127.0.0.1.
    """

    def __init__(self, name: str, port: int, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.port = port
        self._log = directory / f"{name}.log"
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it takes connections.

        @raise RuntimeError: it ended, or is not there after 20 seconds.
        """
        end = time.monotonic() + 20
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not listen: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill it and what it forked."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _pids(self) -> set[int]:
        """It and its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry)] = int(_facts(int(entry))[1])
        family = {self._process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in family} - family
            if not more:
                return family
            family |= more

    def cpu(self) -> float:
        """Seconds of CPU that all of its processes have used, the ended ones included."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                ticks += sum(int(field) for field in _facts(pid)[11:15])
        return ticks / _TICKS

    def memory(self) -> int:
        """Octets of memory that its processes have to themselves."""
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
        return total


def start_kumoproxy(directory: Path, timeout: str = "60s") -> Server:
    """Start our proxy; it writes its log, one line for each session, into a file.

    @param directory: for its configuration and its log.
    @param timeout: how long a client may say nothing.
    """
    port = free_port()
    configuration = directory / "kumoproxy.ini"
    configuration.write_text(_KUMOPROXY.format(port=port, timeout=timeout), encoding="utf-8")
    start = "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", start, "--pidfile=", "-n"]
    return Server("kumoproxy", port, [*command, "kumoproxy", "-c", str(configuration)], directory)


def _start_dante(directory: Path, program: str) -> Server:
    port = free_port()
    configuration = directory / "danted.conf"
    text = _DANTE.format(port=port, user=getpass.getuser(), directory=directory)
    configuration.write_text(text, encoding="utf-8")
    command = [program, "-f", str(configuration), "-p", str(directory / "danted.pid"), "-N", "1"]
    return Server("dante", port, command, directory)


def _start_microsocks(directory: Path, program: str) -> Server:
    port = free_port()
    return Server("microsocks", port, [program, "-i", "127.0.0.1", "-p", str(port)], directory)


@contextlib.contextmanager
def running_servers(directory: Path, names: Sequence[str]) -> Iterator[list[Server]]:
    """Start the servers that are named and installed; stop them at the end."""
    servers: list[Server] = []
    try:
        for name in names:
            if name == "kumoproxy":
                servers.append(start_kumoproxy(directory))
                continue
            program = shutil.which("danted" if name == "dante" else name, path=_PATH)
            if program is None:
                sys.stderr.write(f"{name} is not installed (make real-parts); left out\n")
            elif name == "dante":
                servers.append(_start_dante(directory, program))
            else:
                servers.append(_start_microsocks(directory, program))
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.stop()
