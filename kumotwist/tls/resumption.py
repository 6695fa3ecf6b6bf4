"""TLS sessions that are taken up again: less to compute and to say than a full handshake.

When a session is resumed no certificate is shown (RFC 8446, 2.2), so what the check of the last one
came to is kept with the session: it is resumed by the same source, for the same name, under the
same trust anchors, and never where more is demanded than was found. After an hour the certificate
is looked at again. Where policy wants to see the certificate each time (DANE), no slot is given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import attrs
from OpenSSL import SSL

from kumotwist.tls.facts import CheckedConnection

__all__ = ["KeptSession", "SessionSlot", "TLSSessions"]

#: Sessions that are kept at most; each takes some KiB, mostly for the peer's certificates.
MAX_SESSIONS = 2048
#: Seconds after which the certificate is checked again.
LIFETIME = 3600.0


@attrs.define(frozen=True)
class KeptSession:
    """A session, and what the check of its certificate came to.

    @ivar context: the context that it was made in, with its trust anchors.
    @ivar verified: as in L{kumotwist.tls.facts.PeerCheck}.
    @ivar error: likewise.
    @ivar checked: when the certificate was looked at.
    """

    session: SSL.Session
    context: SSL.Context
    verified: bool
    error: str
    checked: float


class TLSSessions:
    """The sessions of a node, the ones that were used last.

    @param seconds: tells the time.
    @param limit: how many are kept.
    """

    def __init__(self, seconds: Callable[[], float], limit: int = MAX_SESSIONS) -> None:
        self._seconds = seconds
        self._limit = limit
        self._kept: OrderedDict[Hashable, KeptSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def slot(self, source: str, host: str, port: int, *, resume: bool = True) -> SessionSlot:
        """The place for the sessions of a source with a host.

        @param host: the name that its certificate must be for.
        @param resume: as in L{SessionSlot}.
        """
        return SessionSlot(self, (source, host, port), resume)

    def get(self, key: Hashable) -> KeptSession | None:
        """A session that is not too old."""
        kept = self._kept.get(key)
        if kept is not None and self._seconds() - kept.checked > LIFETIME:
            del self._kept[key]
            return None
        return kept

    def put(
        self, key: Hashable, session: SSL.Session, context: SSL.Context, made: CheckedConnection
    ) -> None:
        """Keep the session of a connection whose handshake went well."""
        check = made.peer_check
        earlier = check.resumed
        self._kept[key] = KeptSession(
            session,
            context,
            check.verified,
            check.error,
            self._seconds() if earlier is None else earlier.checked,
        )
        self._kept.move_to_end(key)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Forget a session."""
        self._kept.pop(key, None)


class SessionSlot:
    """Where one connection finds the session of the one before it, and leaves its own.

    @param resume: whether a kept session may be offered; one is left in any case.
    @ivar offered: whether a session was offered to the host.
    """

    def __init__(self, sessions: TLSSessions, key: Hashable, resume: bool = True) -> None:
        self._sessions = sessions
        self._key = key
        self._resume = resume
        self.offered = False

    def take(self, context: SSL.Context, *, verify: bool) -> KeptSession | None:
        """The session to offer, if there is one that is good enough.

        @param context: the context of the new connection.
        @param verify: whether only a certificate that was found good will do.
        """
        kept = self._sessions.get(self._key) if self._resume else None
        if kept is None or kept.context is not context or (verify and not kept.verified):
            return None
        self.offered = True
        return kept

    def keep(self, context: SSL.Context, connection: CheckedConnection) -> None:
        """Keep the session of a connection that has come to its end, in peace.

        OpenSSL spoils the session of a connection that is freed without having been shut down.
        """
        connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        session = connection.get_session()
        if session is not None:
            self._sessions.put(self._key, session, context, connection)

    def forget(self) -> None:
        """The session was of no use: the next handshake is a full one."""
        self._sessions.drop(self._key)
