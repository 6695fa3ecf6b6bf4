"""Clients and destinations for SOCKS5 servers, as cheap as Python can make them.

Each runs in processes of its own, so that none of them is what is measured: short sessions by
blocking sockets in several processes, bulk by C{sendfile} on one side and C{MSG_TRUNC}, which
throws octets away inside the kernel, on the other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["banner_server", "bulk_rate", "bulk_server", "connection_rate", "socks5"]

_fork = multiprocessing.get_context("fork")

BANNER = b"220 mx.example ESMTP\r\n"
_PIECE = 1 << 20


def socks5(handle: socket.socket, port: int, bind: bool = False) -> None:
    """Ask the server on a connected socket for C{127.0.0.1:port}.

    @param bind: whether to choose a source first, 127.0.0.2, as MTAs do with KumoProxy.
    @raise OSError: the server refused or closed.
    """
    handle.sendall(b"\x05\x01\x00")
    if handle.recv(2) != b"\x05\x00":
        raise OSError("no greeting")
    if bind:
        handle.sendall(b"\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x00")
        if handle.recv(10)[:2] != b"\x05\x00":
            raise OSError("BIND was refused")
    handle.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port))
    if handle.recv(10)[:2] != b"\x05\x00":
        raise OSError("refused")


@contextlib.contextmanager
def _children(number: int, work: Callable[..., None], *args: Any) -> Iterator[list[Any]]:
    """Run C{work(*args)} in forked processes that are killed at the end."""
    children = [_fork.Process(target=work, args=args, daemon=True) for _ in range(number)]
    for child in children:
        child.start()
    try:
        yield children
    finally:
        for child in children:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
            child.join()


# -- destinations ----------------------------------------------------------------------------------


def _say_banner(listener: socket.socket) -> None:
    while True:
        handle, _ = listener.accept()
        with contextlib.suppress(OSError):
            handle.sendall(BANNER)
        handle.close()


@contextlib.contextmanager
def banner_server() -> Iterator[int]:
    """A destination that says a banner and closes, as a mail host does after QUIT."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        _children(2, _say_banner, listener),
    ):
        yield listener.getsockname()[1]


def _send_for_ever(listener: socket.socket) -> None:
    memory = os.memfd_create("bulk")
    os.truncate(memory, _PIECE)
    watch = selectors.DefaultSelector()
    listener.setblocking(False)
    watch.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watch.select():
            if key.fileobj is listener:
                handle, _ = listener.accept()
                handle.setblocking(False)
                watch.register(handle, selectors.EVENT_WRITE)
                continue
            peer: Any = key.fileobj
            try:
                os.sendfile(peer.fileno(), memory, 0, _PIECE)
            except BlockingIOError:
                continue
            except OSError:
                watch.unregister(peer)
                peer.close()


@contextlib.contextmanager
def bulk_server() -> Iterator[int]:
    """A destination that sends for ever, without copying."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        _children(1, _send_for_ever, listener),
    ):
        yield listener.getsockname()[1]


# -- clients ---------------------------------------------------------------------------------------


def _short_sessions(port: int, target: int, seconds: float, bind: bool, results: Any) -> None:
    made = failed = 0
    end = time.monotonic() + seconds
    address = ("127.0.0.1", port)
    while time.monotonic() < end:
        handle = socket.socket()
        try:
            handle.settimeout(10)
            handle.connect(address)
            socks5(handle, target, bind)
            arrived = 0
            while piece := handle.recv(4096):
                arrived += len(piece)
            if arrived == len(BANNER):
                made += 1
            else:
                failed += 1
        except OSError:
            failed += 1
        handle.close()
    results.put((made, failed))


def connection_rate(
    port: int, target: int, seconds: float, clients: int, bind: bool = False
) -> tuple[float, int, int]:
    """Make sessions as fast as the server can: connect, ask, read the banner and the end.

    @param port: the SOCKS5 server's.
    @param target: the banner server's.
    @param seconds: for so long.
    @param clients: how many processes do it, each one session at a time.
    @param bind: see L{socks5}.
    @return: sessions per second, how many succeeded, how many failed.
    """
    results = _fork.SimpleQueue()
    begun = time.monotonic()
    with _children(clients, _short_sessions, port, target, seconds, bind, results):
        found = [results.get() for _ in range(clients)]
    taken = time.monotonic() - begun
    made = sum(one for one, _ in found)
    return made / taken, made, sum(failed for _, failed in found)


def _drain(port: int, target: int, seconds: float, streams: int, results: Any) -> None:
    watch = selectors.DefaultSelector()
    for _ in range(streams):
        handle = socket.create_connection(("127.0.0.1", port), 10)
        socks5(handle, target)
        handle.setblocking(False)
        watch.register(handle, selectors.EVENT_READ)
    nowhere = bytearray(_PIECE)
    total = 0
    begun = time.monotonic()
    now = begun
    while now < begun + seconds:
        for key, _ in watch.select(1):
            peer: Any = key.fileobj
            with contextlib.suppress(BlockingIOError):
                total += peer.recv_into(nowhere, _PIECE, socket.MSG_TRUNC)
        now = time.monotonic()
    results.put((total, now - begun))


def bulk_rate(port: int, target: int, seconds: float, streams: int) -> tuple[float, int]:
    """Read as fast as the server can bring it.

    @param streams: over so many sessions at once.
    @return: octets per second, and octets in all.
    """
    results = _fork.SimpleQueue()
    with _children(1, _drain, port, target, seconds, streams, results):
        total, taken = results.get()
    return total / taken, total
