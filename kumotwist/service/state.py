"""The state directory: where a node keeps what must survive it."""

from __future__ import annotations

import contextlib
import os
import re
import uuid

from kumotwist.service.errors import StartError
from kumotwist.spool import Disk, SpoolError
from kumotwist.spool.ownership import OwnedDirectory

__all__ = [
    "all_spools",
    "lack_of_room",
    "left_over_spools",
    "node_id",
    "prepare_state_dir",
    "probe_spool",
    "remove_empty_dirs",
    "spool_path",
    "worker_dir",
]

_NODE_ID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}")


def prepare_state_dir(path: str) -> str:
    """Create the state directory if it is missing.

    @return: its absolute path.
    @raise StartError: if it cannot be used.
    """
    path = os.path.abspath(path)
    try:
        os.makedirs(path, mode=0o750, exist_ok=True)
    except FileExistsError:
        raise StartError(f"state_dir {path}: this is not a directory") from None
    except OSError as error:
        raise StartError(f"state_dir {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(f"state_dir {path}: no permission to read and write this directory")
    return path


def spool_path(configured: str | None, state_dir: str, worker: int) -> str:
    """Where a worker's spool is: the first one's where a node of one process has its own.

    @param configured: C{[spool] path}.
    """
    base = (configured or os.path.join(state_dir, "spool")).rstrip("/")
    return base if worker == 1 else f"{base}-{worker}"


def worker_dir(state_dir: str, worker: int) -> str:
    """Where a worker keeps what is neither mail nor records: it is made if it is missing.

    @raise StartError: if it cannot be used.
    """
    if worker == 1:
        return state_dir
    return prepare_state_dir(os.path.join(state_dir, f"worker-{worker}"))


def remove_empty_dirs(state_dir: str, workers: int) -> None:
    """Remove what L{worker_dir} made for workers that there are no more, if nothing is in it.

    @param workers: how many there are.
    """
    base = os.path.join(state_dir, "worker")
    for path in (f"{base}-{number}" for number in _numbers(base) if number > workers):
        with contextlib.suppress(OSError):  # as where something is in it
            for entry in sorted(os.listdir(path)):
                os.rmdir(os.path.join(path, entry))
            os.rmdir(path)


def orders_path(state_dir: str) -> str:
    """Where a node keeps the operator's orders that survive a restart."""
    return os.path.join(state_dir, "orders.json")


def all_spools(first: str) -> list[str]:
    """The spools that a node has, or had with another number of workers.

    @param first: the first worker's, see L{spool_path}.
    """
    return [first, *(f"{first}-{number}" for number in _numbers(first))]


def left_over_spools(first: str, worker: int, workers: int) -> list[str]:
    """The spools of workers that there are no more, as far as they are for one worker to empty.

    @param first: the first worker's spool, see L{spool_path}.
    """
    return [
        f"{first}-{number}"
        for number in _numbers(first)
        if number > workers and number % workers == worker % workers
    ]


def _numbers(first: str) -> list[int]:
    directory, name = os.path.split(os.path.abspath(first))
    numbers = []
    for entry in os.scandir(directory) if os.path.isdir(directory) else ():
        match = re.fullmatch(re.escape(name) + r"-([1-9][0-9]{0,5})", entry.name)
        if match is not None and entry.is_dir():
            numbers.append(int(match.group(1)))
    return sorted(numbers)


def probe_spool(path: str) -> None:
    """See whether a spool can be had.

    @raise StartError: if it belongs to another process or cannot be used.
    """
    probe = OwnedDirectory(path)
    try:
        probe.acquire()
    except SpoolError as error:
        raise StartError(str(error)) from None
    finally:
        probe.release()


def node_id(state_dir: str) -> str:
    """This node's id: made once, kept in the state directory, part of every record.

    @raise StartError: if it can neither be read nor made.
    """
    path = os.path.join(state_dir, "nodeid")
    damaged = StartError(f"{path}: this is not a node id (delete the file to get a new one)")
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read(100).strip()
        if _NODE_ID.fullmatch(text) is None:
            raise damaged
        return text
    except FileNotFoundError:
        return _new_node_id(path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise damaged from None


def _new_node_id(path: str) -> str:
    """Make an id and keep it: whole, or not at all."""
    fresh = str(uuid.uuid4())
    try:
        with open(f"{path}.new", "w", encoding="ascii") as stream:
            stream.write(fresh + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    return fresh


def lack_of_room(path: str, limit: int) -> str:
    """Why a spool takes no mail: little is free on its disk; empty if there is room.

    Asked when somebody wants to know, for it can come and go without the spool being used: where a
    load balancer has sent everybody elsewhere, no store would find out.

    @param path: the spool's directory.
    @param limit: its C{min_free_space}, in octets.
    """
    try:
        return Disk().lack_of_room(path, limit)
    except OSError:
        return ""  # not made yet
