"""The interfaces that cross rooms. Implementations and fakes are checked with C{verifyObject}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kumotwist.message.queued import QueuedMessage
    from kumotwist.settings.types import IPAddress, Rate
    from kumotwist.smtp.session import ServerSession
    from kumotwist.wire.smtp.events import Recipient, Transaction
    from kumotwist.wire.smtp.replies import Reply

__all__ = [
    "IJournal",
    "ILimits",
    "IPermit",
    "IProxiedTransport",
    "IReception",
    "IResolver",
    "ISpool",
    "ISteering",
    "ITrace",
]


class IProxiedTransport(Interface):
    """A transport whose stream runs through a proxy.

    C{getPeer()} of such a transport is the destination; what lies between has names of its own.
    The innermost protocol reaches it through C{self.transport}, also after C{startTLS}.
    """

    def getProxy() -> Any:
        """The L{kumotwist.endpoints.ProxyHop} that carries the stream.

        With stacked proxies it is the hop nearest to the destination; its C{via} names the rest.
        """


class IReception(Interface):
    """Decides on behalf of an ESMTP listener, and takes the messages that come in.

    The listener has checked syntax, order, limits and relaying before it asks. Of the questions
    C{connected}, C{sender} and C{recipient} the answer L{None} means yes; an answer may be late
    (a Deferred): the client's next command waits for it. A Deferred that is cancelled means that
    nobody waits for the answer any more: the connection is lost, or took too long.
    """

    def connected(session: ServerSession) -> Reply | Deferred[Reply | None] | None:
        """A client has connected; asked before the greeting. A reply instead of L{None} is all
        that the client gets: C{421 4.3.2} while the node cannot take mail."""

    def sender(
        session: ServerSession, transaction: Transaction
    ) -> Reply | Deferred[Reply | None] | None:
        """The client said MAIL; C{transaction} has its sender and parameters."""

    def recipient(
        session: ServerSession, transaction: Transaction, recipient: Recipient
    ) -> Reply | Deferred[Reply | None] | None:
        """The client said RCPT; C{transaction} has those that were accepted before."""

    def receive(session: ServerSession, transaction: Transaction) -> Deferred[Reply]:
        """The final dot has come, the transaction is complete.

        @return: fires with the reply, a 2xx only after the message is safe. If it is cancelled
            (C{data_processing_timeout}, or the client is gone) the client was not told 250: what
            was kept must be undone, since the client will try again.
        """

    def rejected(
        session: ServerSession,
        reply: Reply,
        command: str,
        sender: str = "",
        recipients: Sequence[str] = (),
    ) -> None:
        """A 4xx or 5xx was given, by the listener or by this object. Told once for each, and not
        at all of connections that are more than there may be.

        @param command: what it answers, safe to log; C{"."} for the end of data and the empty
            string for the connection itself.
        @param sender: the sender of the transaction that it ended or was part of, if there was one.
        @param recipients: whom it speaks of: the recipient that was refused, or those that had been
            accepted when the message was.
        """


class ISpool(Interface):
    """Where accepted messages are kept until their fate is decided.

    A Deferred of C{store}, C{update} or C{remove} fires after what was asked is on disk; calls
    that are made while a commit is under way share the next one (group commit). Updates and
    removals may be kept back for a moment, to share the commit of a store. All methods are
    called from the reactor's thread and fire there. Cancelling a Deferred takes nothing back.
    What is asked of a spool that is not open fails with L{kumotwist.spool.SpoolClosedError}.
    """

    writable = Attribute(
        """L{bool}: whether outcomes can be recorded. While it is false deliveries must not start;
        C{update} and C{remove} are kept and tried again every second until they succeed, and
        C{store} waits for the next try and succeeds or fails with it. A store that does not
        fit, while small changes do, fails without making this false."""
    )

    def open() -> Deferred[None]:
        """Take possession of the directory and recover what a crash left.

        @raise kumotwist.spool.SpoolLockedError: (in the Deferred) another process has it.
        @raise kumotwist.spool.SpoolError: (in the Deferred) it cannot be used; the text says why.
        """

    def store(
        body: bytes, messages: Sequence[QueuedMessage], replaced: Sequence[QueuedMessage] = ()
    ) -> Deferred[None]:
        """Keep a body and the messages that share it: all of them, or none.

        @param replaced: messages to forget in the same commit, as L{remove} does, if these are
            kept, and only then: at no moment are there both, or neither.

        Sets C{body_key} of each, at once; it is 0 again if the store fails. Fails with
        L{kumotwist.spool.SpoolFullError} or another L{kumotwist.spool.SpoolError}; then
        nothing of it is kept.
        """

    def update(message: QueuedMessage) -> Deferred[None]:
        """Record the message as it is when this is called: C{attempts}, C{due}, C{queue}, C{meta}
        and the rest of its envelope. Of a message that is gone, nothing is recorded.

        @raise kumotwist.spool.UnstorableMessageError: (in the Deferred) it has a value that cannot
            be written; what was recorded before stays.
        """

    def remove(messages: Sequence[QueuedMessage]) -> Deferred[None]:
        """Forget messages whose fate is decided; a body that nobody shares any more goes too."""

    def forget(message: QueuedMessage) -> None:
        """Forget one message as L{remove} does, where nobody waits for it: what goes wrong is
        logged."""

    def load(message: QueuedMessage) -> Deferred[bytes]:
        """Read the body, also before its store has fired. Fails with
        L{kumotwist.spool.DamagedBodyError} if it is missing or not what was stored, and with
        another L{kumotwist.spool.SpoolError} if that could not be told."""

    def enumerate(visit: Callable[[list[QueuedMessage]], None]) -> Deferred[int]:
        """Hand over every message that was in the spool when it was opened, in batches, those due
        first leading; bodies are not loaded. Fires with their number.

        To be called once, before messages from before the opening are updated or removed.
        Messages that were handed over may be updated and removed at once, also from C{visit}.
        Damaged records are logged and left out.
        """

    def set_writable_observer(observer: Callable[[bool], None]) -> None:
        """Name the one who is told, in the reactor's thread, whenever C{writable} changes."""

    def close() -> Deferred[None]:
        """Finish what was asked, then give the directory up. Updates and removals that cannot be
        written even then fail with L{kumotwist.spool.SpoolClosedError}."""


class IJournal(Interface):
    """Where records of events go: receptions, deliveries, failures (C{log_record} in KumoMTA)."""

    def record(record: dict[str, Any]) -> None:
        """Write one record; it can be read in the file within a second. Never raises for a full
        disk: records that cannot be written are counted and the loss is logged."""

    def record_line(text: str) -> None:
        """Write one record that is a line of JSON already, in ASCII and without its line end."""


class ITrace(Interface):
    """The life of messages as it happens, for whoever watches; costs nothing while nobody does."""

    watched = Attribute("L{bool}: whether anybody watches; test it before building an event.")

    def emit(event: str, message_ids: Sequence[str], **facts: Any) -> None:
        """Tell the watchers: C{received}, C{queued}, C{source}, C{connected}, C{reply}, …"""


class IResolver(Interface):
    """Looks names up, never blocking."""

    def lookup_mx(domain: str, whose: str = "") -> Deferred[Any]:
        """Fires with a L{kumotwist.dns.MailExchangers} for a domain (A-labels). Where more is asked
        than can be under way, those whose mail it is take turns: C{whose} is a tenant's name.

        Fails with L{kumotwist.dns.DNSError}, whose C{permanent} says whether to try again.
        """

    def lookup_addresses(name: str) -> Deferred[Any]:
        """Fires with a tuple of L{ipaddress} addresses of a host; empty if it has none."""

    def lookup_tlsa(host: str, port: int) -> Deferred[Any]:
        """Fires with the L{kumotwist.dns.TLSARecords} of a host, or L{None} if DANE does not apply
        to it. Fails with L{kumotwist.dns.DNSError}: then the host must not be used."""

    def lookup_text(name: str) -> Deferred[Any]:
        """Fires with a tuple of the TXT records of a name, as octets; empty if it has none."""

    def lookup_pointer(address: IPAddress) -> Deferred[Any]:
        """Fires with a tuple of the names of an address (PTR), as text; empty if it has none."""

    def lookup_listing(address: IPAddress, zone: str) -> Deferred[Any]:
        """Fires with a tuple of the IPv4 addresses that the DNS blocklist C{zone} (A-labels)
        answers with for an address; empty if it is not listed."""


class IPermit(Interface):
    """Places that were given by L{ILimits.permit}; held until they are released."""

    contested = Attribute(
        """L{bool}: whether somebody waits for one of these places. Whoever holds one and has
        nothing to do with it shall then release it at once, and whoever is busy soon."""
    )

    def release() -> None:
        """Give the places back. A process that dies gives back what it holds."""


class ILimits(Interface):
    """Limits that hold for the whole node, whatever the number of its processes.

    A name stands for what is limited (C{connections ip-1->mx.example}, say) and says what kind of
    limit it is, for places and rates are counted apart. Answers may be late, since they may come
    from another process; nothing here blocks.
    """

    def permit(
        limits: Mapping[str, int], on_contest: Callable[[], None] | None = None
    ) -> Deferred[Any]:
        """Ask for one place under each of some names: all together, or none yet.

        First come, first served. A limit that differs from what was told before under the same
        name applies at once to what is asked for; what is held beyond it stays held.

        @param limits: the names, and how many places there are under each.
        @param on_contest: called when somebody begins to wait for one of the places while they
            are held.
        @return: fires with an L{IPermit} when the places are free; to be cancelled by who does not
            want to wait any longer.
        """

    def admit(name: str, rate: Rate, events: int = 1) -> float | Deferred[float]:
        """Ask whether events may happen now.

        @return: 0 if they may, and then they are counted; else the seconds after which it is worth
            asking again, and nothing is counted.
        """


class ISteering(Interface):
    """Inspects and steers what waits in a node's queues.

    Whom it is about is said by a dictionary with some of C{campaign}, C{tenant}, C{domain},
    C{routing_domain}, C{source} and C{ready_queue} (texts), C{queue_names} and C{ids} (lists); what
    is not there is not asked about, and an empty one means everything. What a session has taken is
    out of reach. Wrong values raise L{ValueError}, which says what is wrong. Answers may be late.
    """

    def order(kind: str, whom: dict[str, Any], **facts: Any) -> str | Deferred[str]:
        """Let something hold for a while: C{bounce}, C{suspend} or C{suspend-ready-q}.

        @param facts: C{reason}, C{expires} (seconds since the epoch), C{quiet}, C{report},
            C{persist}.
        @return: the order's id.
        @raise OSError: if it is to survive a restart and cannot be kept.
        """

    def cancel(kind: str, order_id: str) -> bool | Deferred[bool]:
        """End an order; say whether there was one."""

    def orders(kind: str) -> list[dict[str, Any]] | Deferred[list[dict[str, Any]]]:
        """The orders that hold, as JSON has them."""

    def rebind(
        whom: dict[str, Any], data: dict[str, str], reason: str, *, flush: bool, quiet: bool
    ) -> Deferred[None] | None:
        """Change what messages are, and the queue with it; see KumoMTA's rebind.

        @param flush: make all of them due at once, not only those whose queue has changed.
        @param quiet: write no records.
        """

    def check_rebind(whom: dict[str, Any], data: dict[str, str], *, flush: bool) -> None:
        """Say what is wrong about a rebind by a L{ValueError}, as L{rebind} would; do nothing."""

    def count(whom: dict[str, Any]) -> Deferred[dict[str, int]]:
        """How many messages are meant, by queue."""

    def queues(limit: int) -> dict[str, Any] | Deferred[dict[str, Any]]:
        """The largest queues, as JSON has them."""

    def ready_states(names: Sequence[str]) -> dict[str, Any] | Deferred[dict[str, Any]]:
        """What ready queues (all, if none is named) wait for, by name."""

    def missing_workers() -> Sequence[int]:
        """The workers whose queues the answers that were just given lack, since they are being
        started or have not answered."""

    def inspect(message_id: str, want_body: bool) -> Deferred[dict[str, Any] | None]:
        """What is known of a message; L{None} if it does not wait anywhere."""
