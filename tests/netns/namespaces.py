"""Machines of a test: network namespaces, joined by virtual cables (L{Machines})."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SkipTest, TestCase

__all__ = ["Machines", "on"]

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000


def on(machine: str, function: Callable[[], _T]) -> _T:
    """Call a function in a thread that stands in a machine's network; blocks.

    Sockets that it makes stay in that network, wherever they are used afterwards.

    @param machine: the name that L{Machines.add} gave.
    @raise OSError: what the function raised.
    """
    results: list[_T] = []
    failures: list[Exception] = []

    def enter() -> None:
        try:
            descriptor = os.open(f"/run/netns/{machine}", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), machine)
            finally:
                os.close(descriptor)
            results.append(function())
        except Exception as error:
            failures.append(error)

    # A thread of its own: that of a pool would never come back from there.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


class Machines:
    """The machines of one test; they are gone when it is over.

    @raise SkipTest: this process may not make any.
    """

    def __init__(self, test: TestCase) -> None:
        self._test = test
        self._prefix = f"kumotest-{os.getpid()}"
        try:
            self.add("probe")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            raise SkipTest(f"no network namespaces here: {reason.strip()}") from None

    def add(self, name: str) -> str:
        """Make a machine that has nothing but its loopback; give its name for L{on}."""
        machine = f"{self._prefix}-{name}"
        _ip("netns", "add", machine)
        self._test.addCleanup(_ip, "netns", "del", machine)
        _ip("-n", machine, "link", "set", "lo", "up")
        return machine

    def join(self, one: str, first: str, other: str, second: str) -> None:
        """Lay a cable between two machines, each end with addresses (C{ADDRESS/LENGTH}, …)."""
        ends = ((one, f"to{other[-8:]}", first), (other, f"to{one[-8:]}", second))
        (near, near_name, _), (far, far_name, _) = ends
        _ip(
            "link", "add", "name", near_name, "netns", near,
            "type", "veth", "peer", "name", far_name, "netns", far,
        )  # fmt: skip
        for machine, device, addresses in ends:
            _ip("-n", machine, "link", "set", device, "up")
            for address in addresses.split(", "):
                self._address(machine, address, device)

    def give(self, machine: str, address: str) -> None:
        """Give a machine one more address of its own."""
        self._address(machine, address, "lo")

    def route(self, machine: str, network: str, gateway: str) -> None:
        """Tell a machine the way to a network."""
        _ip("-n", machine, "route", "add", network, "via", gateway)

    def swallow(self, machine: str, address: str) -> None:
        """Let a router drop what goes to an address, without a word to the sender."""
        _ip("-n", machine, "route", "add", "blackhole", address)

    def forward(self, machine: str) -> None:
        """Make a router of a machine, for both families."""

        def switch_on() -> None:
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path("/proc/sys/net", name).write_text("1", encoding="ascii")

        on(machine, switch_on)

    def _address(self, machine: str, address: str, device: str) -> None:
        # Without nodad an IPv6 address is of no use for its first seconds.
        more = ["nodad"] if ":" in address else []
        _ip("-n", machine, "address", "add", address, "dev", device, *more)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
