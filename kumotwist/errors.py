"""The root of every exception that kumotwist raises on purpose."""

__all__ = ["KumotwistError"]


class KumotwistError(Exception):
    """Base of kumotwist's own exceptions; each room derives its tree from this class."""
