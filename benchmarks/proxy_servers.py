"""The SOCKS5 servers that are compared, each started on a private port of loopback."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.server import SEARCH_PATH, Server, free_port, twistd

__all__ = ["running_servers", "start_kumoproxy"]

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


def start_kumoproxy(directory: Path, timeout: str = "60s") -> Server:
    """Start our proxy; it writes its log, one line for each session, into a file.

    @param directory: for its configuration and its log.
    @param timeout: how long a client may say nothing.
    """
    port = free_port()
    configuration = directory / "kumoproxy.ini"
    configuration.write_text(_KUMOPROXY.format(port=port, timeout=timeout), encoding="utf-8")
    return Server("kumoproxy", port, twistd("kumoproxy", "-c", str(configuration)), directory)


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
            program = shutil.which("danted" if name == "dante" else name, path=SEARCH_PATH)
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
