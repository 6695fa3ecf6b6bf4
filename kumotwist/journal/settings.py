"""What can be configured of the records: the C{[log]} section."""

from __future__ import annotations

import attrs

from kumotwist.settings import setting
from kumotwist.settings.types import DURATION, SIZE, TEXT

__all__ = ["LogSettings"]


@attrs.define(frozen=True)
class LogSettings:
    """Where delivery records are written and when a file is finished."""

    path: str | None = setting(
        TEXT,
        "The directory of the records; it is created if it does not exist. Without it, `log` in "
        "the state directory.",
        default=None,
    )
    max_file_size: int = setting(
        SIZE,
        "A file that would grow beyond this size is finished and a new one begun.",
        default=1_000_000_000,
    )
    max_segment_duration: float | None = setting(
        DURATION,
        "A file is finished this long after it was begun, whatever its size. Without it, only "
        "`max_file_size` counts.",
        default=None,
    )
