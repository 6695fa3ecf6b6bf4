"""The two ways in which a wire machine can fail."""

from kumotwist.errors import KumotwistError

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(KumotwistError):
    """A rule of the protocol was broken; only the two subclasses are ever raised."""


class LocalProtocolError(ProtocolError):
    """We tried to do what the protocol does not allow: a defect on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow."""
