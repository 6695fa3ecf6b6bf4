"""A program that cannot start says why in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.logger import Logger

from kumotwist.errors import KumotwistError

__all__ = ["explain_failed_start"]

_log = Logger()


def explain_failed_start(program: str) -> None:
    """From now on, an error of ours that ends the process is a line in its log, no traceback.

    What starts only when C{twistd} runs, such as listening, fails within C{twistd}, which tells
    the one who started a daemon, removes the pid file and lets the exception end the process with
    status 1; so the exception must be left to pass, and only its picture be changed.

    @param program: how the line begins.
    """
    before: Callable[..., Any] = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KumotwistError):
            _log.critical("{program} cannot start: {reason}", program=program, reason=str(error))
        else:
            before(kind, error, trace)

    sys.excepthook = tell
