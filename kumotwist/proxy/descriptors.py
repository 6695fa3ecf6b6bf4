"""How many descriptors the process may have: two for each session, four with splicing."""

from __future__ import annotations

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> int | None:
    """Raise the soft limit of open descriptors to the hard one.

    To be called once by the program, before it listens; it needs no privileges.

    @return: the limit that holds now, or L{None} where the platform has none.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports a hard limit that it does not accept
        return soft
    return hard
