"""What a proxy counts."""

from __future__ import annotations

from attrs import define, field

__all__ = ["ProxyCounters"]


@define
class ProxyCounters:
    """Plain numbers since the start; they grow as things happen, not when a session ends.

    @ivar accepted: clients that connected.
    @ivar failed: sessions that ended before a connection to the destination stood.
    @ivar completed: sessions that relayed and have ended, however.
    @ivar active: clients that are connected now.
    @ivar outbound: connections to destinations that were made.
    @ivar bytes_to_destination: octets relayed from clients.
    @ivar bytes_to_client: octets relayed from destinations.
    @ivar tls_failures: TLS handshakes with clients that failed.
    @ivar logins_refused: logins that were refused.
    @ivar turned_away: clients closed at once because C{max_connections} were there, or no
        descriptor was left.
    @ivar refusals: requests refused, by REP code.
    """

    accepted: int = 0
    failed: int = 0
    completed: int = 0
    active: int = 0
    outbound: int = 0
    bytes_to_destination: int = 0
    bytes_to_client: int = 0
    tls_failures: int = 0
    logins_refused: int = 0
    turned_away: int = 0
    refusals: dict[int, int] = field(factory=dict)

    def count_refusal(self, rep: int) -> None:
        """Count a reply with the code C{rep}."""
        self.refusals[rep] = self.refusals.get(rep, 0) + 1
