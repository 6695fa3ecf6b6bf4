"""Running a function in a child process and looking at its files after every system call.

C{ptrace} stops the child before and after each system call, SQLite's own included. What a C{kill
-9} at that moment leaves are the files as they are then; what a power failure leaves at worst are
the files as they were at their last C{fsync}. Needs Linux, on x86-64 or 64-bit ARM.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

__all__ = ["Files", "watch_system_calls"]

Files = dict[str, bytes]
"""What a directory holds, by relative path; the lock and SQLite's shared memory excepted."""

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_O_TRACESYSGOOD_AND_EXITKILL = 1 | 1 << 20
_ENTRY = 1

# fsync and fdatasync.
_SYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """The head of Linux's C{struct ptrace_syscall_info}, and a system call's arguments."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


def watch_system_calls(
    directory: Path,
    work: Callable[[], None],
    look: Callable[[Files, Files], None],
) -> int:
    """Run C{work} in a child, and C{look} whenever a system call has changed a file.

    @param directory: whose files are watched; it exists.
    @param look: called with the files as they are, and as they were last synced.
    @return: how many system calls the child made.
    @raise AssertionError: the child failed.
    """
    child = os.fork()
    if child == 0:
        _be_watched(work)
    _wait(child)
    _ptrace(_SETOPTIONS, child, None, _O_TRACESYSGOOD_AND_EXITKILL)
    syncs = _SYNCS[platform.machine()]
    last: Files = {}
    synced: Files = {}
    syncing: str | None = None
    number = 0
    deliver = 0
    while True:
        _ptrace(_SYSCALL, child, None, deliver)
        status = _wait(child)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            assert status == 0, f"the child ended with {status}"
            return number
        stopped_by = os.WSTOPSIG(status)
        deliver = 0 if stopped_by == signal.SIGTRAP | 0x80 else stopped_by
        if deliver:
            continue
        info = _Info()
        size = ctypes.sizeof(info)
        _ptrace(_GET_SYSCALL_INFO, child, size, ctypes.addressof(info))
        if info.op == _ENTRY:
            number += 1
            syncing = None
            if info.number in syncs:
                syncing = os.readlink(f"/proc/{child}/fd/{info.arguments[0]}")
            continue
        files = _read(directory)
        if syncing is not None:
            _note_sync(directory, syncing, files, synced)
        if files != last or syncing is not None:
            look(files, synced)
            last = files


def _be_watched(work: Callable[[], None]) -> None:
    """What the child does; never returns."""
    status = 1
    try:
        _ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
        status = 0
    finally:
        os._exit(status)


def _ptrace(request: int, pid: int, address: int | None, data: int | None) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def _wait(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _read(directory: Path) -> Files:
    found: Files = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            if name != "lock" and not name.endswith("-shm"):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, directory)] = file.read()
    return found


def _note_sync(directory: Path, path: str, files: Files, synced: Files) -> None:
    """A file's content is safe after its sync, and names after their directory's."""
    name = os.path.relpath(path, directory)
    if name in files:
        synced[name] = files[name]
    for known in list(synced):
        # A deletion that is not on disk yet is undone by a power failure; that is the worse case
        # for nobody here, since what is deleted is not referred to.
        if known not in files and os.path.dirname(known) == ("" if name == "." else name):
            del synced[known]
