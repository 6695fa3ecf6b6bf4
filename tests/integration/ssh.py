"""OpenSSH as a SOCKS5 server: C{ssh -D} through a private C{sshd} with throw-away keys."""

from __future__ import annotations

import getpass
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.parts import find
from tests.integration.processes import Child, run
from tests.integration.waiting import free_port

__all__ = ["start_ssh_socks"]

_SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/login.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
"""


async def start_ssh_socks(test: TestCase) -> tuple[Child, int]:
    """Start C{sshd} and, logged in to it, C{ssh -D}.

    @return: the ssh client and the port of its SOCKS5 server.
    """
    sshd, ssh, keygen = find("sshd"), find("ssh"), find("ssh-keygen")
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    for name in ("host", "login"):
        run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)])
    port, socks = free_port(), free_port()
    config = directory / "sshd_config"
    config.write_text(_SSHD.format(port=port, directory=directory), encoding="utf-8")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists; Debian's unit makes it
    server = Child(test, "sshd", [sshd, "-D", "-e", "-f", str(config)], directory=directory)
    await server.wait_for_listening(port)
    options = (
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
    )
    command = [ssh, "-F", "none", "-N", "-D", f"127.0.0.1:{socks}", "-p", str(port)]
    command += ["-i", str(directory / "login"), *(f"-o{option}" for option in options)]
    client = Child(test, "ssh", [*command, f"{getpass.getuser()}@127.0.0.1"], directory=directory)
    await client.wait_for_listening(socks)
    return client, socks
