"""Bulk through SOCKS5 servers, as cheap as Python can make it: C{sendfile} on one side and
C{MSG_TRUNC}, which throws octets away inside the kernel, on the other; both in processes of their
own, so that neither of them is what is measured.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define

__all__ = ["BulkFigures", "bulk_rate", "bulk_server", "socks5"]

_fork = multiprocessing.get_context("fork")

_PIECE = 1 << 20


@define(frozen=True)
class BulkFigures:
    """What a run of the load was.

    @ivar rate: octets per second.
    @ivar octets: octets in all.
    @ivar cpu: seconds of CPU that the reader took.
    """

    rate: float
    octets: int
    cpu: float


def socks5(handle: socket.socket, port: int) -> None:
    """Ask the server on a connected socket for C{127.0.0.1:port}.

    @raise OSError: the server refused or closed.
    """
    handle.sendall(b"\x05\x01\x00")
    if handle.recv(2) != b"\x05\x00":
        raise OSError("no greeting")
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


def _send_for_ever(listener: socket.socket) -> None:
    memory = os.memfd_create("bulk")
    os.truncate(memory, _PIECE)
    peers: dict[int, socket.socket] = {}
    epoll = select.epoll()
    listener.setblocking(False)
    epoll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for number, _ in epoll.poll():
            if number == listener.fileno():
                handle, _ = listener.accept()
                handle.setblocking(False)
                peers[handle.fileno()] = handle
                epoll.register(handle.fileno(), select.EPOLLOUT)
                continue
            try:
                os.sendfile(number, memory, 0, _PIECE)
            except BlockingIOError:
                continue
            except OSError:
                peers.pop(number).close()


@contextlib.contextmanager
def bulk_server() -> Iterator[int]:
    """A destination that sends for ever, without copying."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        _children(1, _send_for_ever, listener),
    ):
        yield listener.getsockname()[1]


def _drain(port: int | None, target: int, seconds: float, streams: int, results: Any) -> None:
    peers: dict[int, socket.socket] = {}
    epoll = select.epoll()
    for _ in range(streams):
        handle = socket.create_connection(("127.0.0.1", port or target), 10)
        if port is not None:
            socks5(handle, target)
        handle.setblocking(False)
        peers[handle.fileno()] = handle
        epoll.register(handle.fileno(), select.EPOLLIN)
    nowhere = bytearray(_PIECE)
    total = 0
    begun, cpu = time.monotonic(), time.process_time()
    now = begun
    while now < begun + seconds:
        for number, _ in epoll.poll(1):
            with contextlib.suppress(BlockingIOError):
                total += peers[number].recv_into(nowhere, _PIECE, socket.MSG_TRUNC)
        now = time.monotonic()
    results.put(BulkFigures(total / (now - begun), total, time.process_time() - cpu))


def bulk_rate(port: int | None, target: int, seconds: float, streams: int) -> BulkFigures:
    """Read as fast as the server can bring it.

    @param port: the SOCKS5 server's; L{None} for none at all.
    @param target: the port of L{bulk_server}.
    @param streams: over so many sessions at once.
    """
    results = _fork.SimpleQueue()
    with _children(1, _drain, port, target, seconds, streams, results):
        figures: BulkFigures = results.get()
    return figures
