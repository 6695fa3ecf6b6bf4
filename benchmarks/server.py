"""A server that a benchmark starts: a process of its own, its CPU and its memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ROOT", "SEARCH_PATH", "Server", "free_port", "twistd"]

#: Where the project is: what is started here is to find it.
ROOT = Path(__file__).resolve().parents[1]
#: Where programs are looked for; Debian's servers are not where users look.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _facts(pid: int) -> list[str]:
    """The fields of C{/proc/PID/stat} behind the command's name: state, parent, …"""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def twistd(*arguments: str) -> list[str]:
    """The command that runs one of our plugins with this Python."""
    start = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", start, "--pidfile=", "-n", *arguments]


class Server:
    """A server that runs.

    @ivar name: how the table calls it.
    @ivar port: where it listens on 127.0.0.1.
    @ivar started: when, by the monotonic clock.
    """

    def __init__(
        self, name: str, port: int, command: Sequence[str], directory: Path, root: Path = ROOT
    ) -> None:
        """
        @param root: where it finds Python modules before all other places.
        """
        self.name = name
        self.port = port
        self._log = directory / f"{name}.log"
        self.started = time.monotonic()
        environment = dict(os.environ, PYTHONPATH=str(root))
        # Installed programs have their bytecode: what starts here shall have it, too.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
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

    def wait(self, greeting: bytes = b"") -> None:
        """Wait until it takes connections.

        @param greeting: what the first octets have to be that it sends.

        @raise RuntimeError: it ended, or is not there after 20 seconds.
        """
        end = time.monotonic() + 20
        while time.monotonic() < end and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 5) as connection,
            ):
                if connection.recv(len(greeting)) == greeting:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not listen: {self._log.read_text()[-2000:]}")

    def has_said(self, words: bytes) -> bool:
        """Whether something is in its log."""
        return words in self._log.read_bytes()

    def stop(self) -> None:
        """Kill it and what it forked."""
        family = self._pids()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in family - {self._process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
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
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(("Private_Clean:", "Private_Dirty:")):
                        total += int(line.split()[1]) * 1024
        return total
