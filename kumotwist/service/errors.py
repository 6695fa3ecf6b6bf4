"""Why a node cannot start."""

from kumotwist.errors import KumotwistError

__all__ = ["StartError"]


class StartError(KumotwistError):
    """The node cannot start; the text says what is wrong and where."""
