"""Sending one message over any endpoint, without the MTA."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SessionTLSError,
    SMTPSessionError,
    Timeouts,
    TransactionOutcome,
)
from kumotwist.tls.client import ClientTrust, client_tls_options
from kumotwist.tls.policy import tls_demand
from kumotwist.wire.smtp.data import canonical

__all__ = ["ESMTPClientFactory"]


class ESMTPClientFactory(Factory):
    """Sends a message over the one connection that it is given, then says QUIT::

        factory = ESMTPClientFactory(
            reactor, "me@example.org", ["you@example.com"], body,
            hostname="mta.example.org", peer_name="mx.example.com",
        )
        await endpoint.connect(factory)
        outcome = await factory.sent

    @ivar sent: fires with the L{TransactionOutcome}, in which every recipient has a reply; fails
        with an L{SMTPSessionError} if the session did not get that far. If the connection cannot
        be made, that is the endpoint's to say, and C{sent} never fires.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        sender: str,
        recipients: Iterable[str],
        body: bytes,
        *,
        hostname: str,
        peer_name: str,
        tls: str = "Opportunistic",
        trust: ClientTrust | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """
        @param reactor: tells the time.
        @param sender: the envelope sender without brackets; empty for the null sender.
        @param recipients: the envelope recipients without brackets.
        @param body: the message, header included; line ends of any kind become CRLF.
        @param hostname: what we call ourselves.
        @param peer_name: the server's name, which its certificate must be for.
        @param tls: one of KumoMTA's five values of C{enable_tls}: see L{kumotwist.tls.policy}.
        @param trust: whose certificates count; the system's choice if absent.
        @param timeouts: how long to wait for what.
        """
        self.sent: Deferred[TransactionOutcome] = Deferred()
        self._reactor = reactor
        self._transaction = OutgoingTransaction(
            sender, tuple(recipients), canonical(body), line_ends_checked=True
        )
        self._hostname = hostname
        self._peer_name = peer_name
        self._demand = tls_demand(tls)
        self._trust = trust
        self._timeouts = timeouts
        self._built = False

    def buildProtocol(self, addr: IAddress | None) -> ESMTPClient | None:
        """Make the protocol of the first connection; there is none for a second one."""
        if self._built:
            return None
        self._built = True
        client = ESMTPClient(
            self._reactor,
            hostname=self._hostname,
            timeouts=self._timeouts,
            peer_name=self._peer_name,
        )
        client.factory = self
        Deferred.fromCoroutine(self._dialogue(client)).chainDeferred(self.sent)
        return client

    async def _dialogue(self, client: ESMTPClient) -> TransactionOutcome:
        try:
            await client.open()
            await self._secure(client)
            outcome = await client.send(self._transaction)
        except SMTPSessionError:
            client.quit()
            raise
        client.quit()
        return outcome

    async def _secure(self, client: ESMTPClient) -> None:
        if self._demand.attempt and client.capabilities.starttls:
            options = client_tls_options(
                self._peer_name, verify=self._demand.verify, trust=self._trust
            )
            await client.start_tls(options)
        elif self._demand.required:
            text = f"{self._peer_name} does not offer STARTTLS ({self._demand.reason})"
            raise SessionTLSError("starttls", text)
