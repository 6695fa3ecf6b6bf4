"""A worker must not outlive its supervisor: the next one wants the ports and the spools.

This comes before everything else in a worker, so it imports next to nothing.
"""

from __future__ import annotations

import ctypes
import select
import signal

__all__ = ["end_with_parent"]

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


def end_with_parent(channel: int) -> None:
    """Have the kernel kill this process when its parent is gone, however that ended.

    What is cut off is what any kill cuts off: what was accepted is in the spool. A process that
    sees the end of its channel ends as well, but later, and not while it is starting. Where there
    is no such call (outside Linux) that is all there is.

    @param channel: a descriptor of which the parent has the other end.
    @raise SystemExit: the parent is gone already.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return
    prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3)
    # It may have gone before: then the kernel had nobody to kill.
    watch = select.poll()
    watch.register(channel, 0)
    if watch.poll(0):
        raise SystemExit("the supervisor is gone")
