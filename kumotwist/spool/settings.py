"""The settings of a spool."""

from __future__ import annotations

import attrs

from kumotwist.settings import setting
from kumotwist.settings.types import BOOLEAN, SIZE, TEXT

__all__ = ["SpoolSettings"]


@attrs.define(frozen=True)
class SpoolSettings:
    """Where messages are kept until their fate is decided, and how."""

    path: str | None = setting(
        TEXT,
        "Directory of the spool; one process owns it at a time. Without it, `spool` in the state "
        "directory.",
        default=None,
    )
    durable: bool = setting(
        BOOLEAN,
        "Whether a message is on disk (fsync) before it is accepted. `no` is faster and loses "
        "accepted messages when the machine loses power; a crash of the program alone loses none.",
        default=True,
    )
    large_body_threshold: int = setting(
        SIZE,
        "Bodies above this size are appended to segment files; smaller ones live in the database.",
        default=16 * 1024,
    )
    segment_size: int = setting(
        SIZE,
        "A segment file that has grown to this size is followed by a new one. It is deleted when "
        "nothing in it is needed any more.",
        default=64 * 1024 * 1024,
    )
    min_free_space: int = setting(
        SIZE,
        "When less than this is free on the file system, no mail is accepted. What is left is for "
        "recording deliveries, without which the spool could never become emptier: less "
        "than 16MiB does not ensure that.",
        default=64 * 1024 * 1024,
    )
