"""Where a delivery session goes on after a host has ended it: C{reconnect_strategy}."""

from __future__ import annotations

from kumotwist.egress.settings import PathSettings
from kumotwist.queue.targets import Target, TargetWalk

__all__ = ["Reconnection"]


class Reconnection:
    """Decides what follows a connection that was lost, or closed with a 421, during a delivery.

    C{ReconnectSameHost} gives a host one more chance; if that carries no message either, the
    session is over. Otherwise a host that closes at every message would be called for ever.

    @ivar optional: whether the session goes on for messages that this plan has not failed yet:
        if its other hosts cannot be used, a new session with a fresh plan is better than failure.
    """

    def __init__(self, path: PathSettings, walk: TargetWalk) -> None:
        self.optional = False
        self._path = path
        self._walk = walk
        self._target: Target | None = None
        self._called_again = False

    @property
    def possible(self) -> bool:
        """Whether there is a host to go on with."""
        if self._path.reconnect_strategy == "ConnectNextHost":
            return self._walk.more
        if self._path.reconnect_strategy == "ReconnectSameHost":
            return self._target is not None and not self._called_again
        return False

    @property
    def for_messages(self) -> bool:
        """Whether the messages at hand may be tried there too, at once."""
        return self._path.try_next_host_on_transport_error and self.possible

    def connected(self, target: Target) -> None:
        """A host has accepted a session."""
        self._target = target

    def delivered(self) -> None:
        """A host has answered a message to its end."""
        self._called_again = False

    def go_on(self, *, optional: bool) -> bool:
        """Point the walk to the host to go on with; false if the session is over.

        @param optional: for C{optional}.
        """
        if not self.possible:
            return False
        self.optional = optional
        if self._path.reconnect_strategy == "ReconnectSameHost":
            assert self._target is not None
            self._called_again = True
            self._walk.repeat(self._target)
        return True
