"""What the operator has ordered about queues, for a while: suspensions, and bounces of what comes.

An order that is to survive a restart is in a file beside the spool, which is replaced as a whole.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.settings import QueueName
from kumotwist.queue.verdicts import internal_reply

if TYPE_CHECKING:
    from kumotwist.queue.fate import Fates

__all__ = ["BOUNCE", "LONGEST_SUSPENSION", "SUSPEND", "SUSPEND_READY", "Order", "Orders", "Whom"]

BOUNCE, SUSPEND, SUSPEND_READY = "bounce", "suspend", "suspend-ready-q"
_KINDS = (BOUNCE, SUSPEND, SUSPEND_READY)
#: Queues by name whose bounces an order counts; the rest is counted together.
MAX_COUNTED = 1000
#: What is suspended is looked at after so many seconds: it may have become too old.
LONGEST_SUSPENSION = 3600.0


@attrs.define(frozen=True)
class Whom:
    """Whom an order concerns; what is L{None} or empty concerns all.

    @ivar domain: the recipients' domain.
    @ivar queue_names: these queues, whatever else is said of tenant, campaign and domain.
    @ivar ids: these messages.
    @ivar source: what waits for this source.
    @ivar ready_queue: the ready queue of this name.
    """

    campaign: str | None = None
    tenant: str | None = None
    domain: str | None = None
    routing_domain: str | None = None
    queue_names: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    source: str | None = None
    ready_queue: str | None = None

    def matches_queue(self, queue: str) -> bool:
        """Whether a scheduled queue is meant."""
        if self.queue_names:
            return queue in self.queue_names
        name = QueueName.parse(queue)
        return (
            self.campaign in {None, name.campaign}
            and self.tenant in {None, name.tenant}
            and self.domain in {None, name.domain}
            and self.routing_domain in {None, name.routing_domain}
        )

    def matches(self, message: QueuedMessage) -> bool:
        """Whether a message is meant, as far as it can say itself."""
        if self.ids and message.id not in self.ids:
            return False
        return self.matches_queue(message.queue)

    def matches_ready(self, source: str, site: str) -> bool:
        """Whether a ready queue is meant."""
        if self.source is not None and source != self.source:
            return False
        return (
            self.ready_queue is None or self.ready_queue.rpartition("@")[0] == f"{source}->{site}"
        )

    def fields(self) -> dict[str, Any]:
        """As JSON has it; what is not there is left out."""
        found = attrs.asdict(self, value_serializer=_plain)
        return {name: value for name, value in found.items() if value}


def _plain(_: Any, __: Any, value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


@attrs.define(eq=False)
class Order:
    """An order.

    @ivar kind: C{BOUNCE}, C{SUSPEND} or C{SUSPEND_READY}.
    @ivar expires: when it ends; seconds since the epoch.
    @ivar quiet: whether what it does to messages is not recorded.
    @ivar report: whether senders are told of bounces.
    @ivar persist: whether it survives a restart.
    @ivar done: how many messages it has met, by queue.
    """

    kind: str
    whom: Whom
    reason: str
    expires: float
    quiet: bool = False
    report: bool = False
    persist: bool = False
    id: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    done: Counter[str] = attrs.field(factory=Counter)

    def fields(self) -> dict[str, Any]:
        """As JSON has it, without what it has done; see L{of}."""
        return {
            "kind": self.kind,
            "whom": self.whom.fields(),
            "reason": self.reason,
            "expires": self.expires,
            "quiet": self.quiet,
            "report": self.report,
            "persist": self.persist,
            "id": self.id,
        }

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Order:
        """The order that L{fields} came from.

        @raise TypeError: (or L{ValueError} or L{KeyError}) if it is none.
        """
        fields = dict(fields)
        for name, kind in (("kind", str), ("reason", str), ("id", str), ("expires", (int, float))):
            if not isinstance(fields[name], kind):
                raise TypeError(f"{name} is {fields[name]!r}")
        whom = dict(fields.pop("whom"))
        for name in ("queue_names", "ids"):
            whom[name] = frozenset(whom.get(name, ()))
        return cls(whom=Whom(**whom), **fields)

    def count(self, message: QueuedMessage) -> None:
        """A message was met."""
        known = message.queue in self.done or len(self.done) < MAX_COUNTED
        self.done[message.queue if known else "others"] += 1


class Orders:
    """The orders that hold.

    @param clock: tells the time.
    @param path: the file of those that survive a restart; L{None} for none.
    """

    _log = Logger()

    def __init__(self, clock: Any, path: str | None = None) -> None:
        self._clock = clock
        self._path = path
        self._orders: dict[str, Order] = {}
        # Why the file must not be replaced.
        self._unsafe = ""
        #: Whether there is any; tested before anything is asked.
        self.any = False

    def load(self) -> None:
        """Read the orders that have survived.

        A file that cannot be read, or not in full, is set aside, so that no new order is saved
        over it; what could be read holds.
        """
        if self._path is None or not os.path.exists(self._path):
            return
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = json.load(file)
            wrong = "" if isinstance(kept, list) else "it is not a list"
        except (OSError, ValueError, RecursionError) as error:
            kept, wrong = [], str(error)
        for number, fields in enumerate(kept if not wrong else (), 1):
            try:
                order = Order.of({**fields, "persist": True})
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                wrong = f"order {number} is none: {error!r}"
                continue
            self._orders[order.id] = order
        self.any = bool(self._orders)
        if wrong:
            self._set_aside(wrong)

    def _set_aside(self, wrong: str) -> None:
        aside = f"{self._path}.unreadable-{uuid.uuid4()}"
        try:
            os.rename(str(self._path), aside)
        except OSError as error:
            self._unsafe = f"{self._path} cannot be read, and not be set aside: {error}"
            aside = "where it is, and no order is kept over a restart"
        self._log.critical(
            "orders that were to survive do not hold, {path} cannot be read: {wrong}; "
            "it is left as {aside}; {n} orders in it hold",
            path=self._path, wrong=wrong, aside=aside, n=len(self._orders),
        )  # fmt: skip
        if self._orders and not self._unsafe:
            try:
                self._save()
            except OSError as error:
                self._log.error("{path} cannot be written: {e}", path=self._path, e=str(error))

    def fields(self) -> list[dict[str, Any]]:
        """All that hold, as JSON has them; see L{Order.of}."""
        return [order.fields() for order in self.listed(*_KINDS)]

    def add(self, order: Order) -> None:
        """Let an order hold from now on.

        @raise OSError: if it is to survive a restart and cannot be written; it does not hold then.
        """
        self._orders[order.id] = order
        try:
            if order.persist:
                self._save()
        except OSError:
            del self._orders[order.id]
            raise
        self.any = True

    def cancel(self, order_id: str, kind: str) -> Order | None:
        """End an order.

        @return: what ended, if there was such an order.
        @raise OSError: if it would come back with a restart; it holds on then.
        """
        order = self._orders.get(order_id)
        if order is None or order.kind != kind:
            return None
        del self._orders[order_id]
        try:
            if order.persist:
                self._save()
        except OSError:
            self._orders[order_id] = order
            raise
        self.any = bool(self._orders)
        return order

    def listed(self, *kinds: str) -> list[Order]:
        """The orders of some kinds that hold."""
        now = self._clock.seconds()
        over = [order for order in self._orders.values() if order.expires <= now]
        for order in over:
            del self._orders[order.id]
        self.any = bool(self._orders)
        if any(order.persist for order in over):
            self._save()
        return [order for order in self._orders.values() if order.kind in kinds]

    def suspended(self, queue: str) -> Order | None:
        """The order that suspends a scheduled queue longest; one about messages does not."""
        orders = [order for order in self.listed(SUSPEND) if not order.whom.ids]
        return _longest(orders, lambda whom: whom.matches_queue(queue))

    def message_suspended(self, message: QueuedMessage) -> Order | None:
        """The order that suspends this very message."""
        orders = [order for order in self.listed(SUSPEND) if order.whom.ids]
        return _longest(orders, lambda whom: whom.matches(message))

    def ready_suspended(self, source: str, site: str) -> Order | None:
        """The order that suspends a source, or a source for a site."""
        return _longest(self.listed(SUSPEND_READY), lambda whom: whom.matches_ready(source, site))

    def bounced(self, message: QueuedMessage) -> Order | None:
        """The order that bounces a message; one about a source spoke of what waited for it."""
        orders = [order for order in self.listed(BOUNCE) if order.whom.source is None]
        return _longest(orders, lambda whom: whom.matches(message))

    def enforce(self, messages: list[QueuedMessage], fates: Fates) -> list[QueuedMessage]:
        """Bounce those messages that are to be bounced, let those wait that are suspended.

        @return: the others.
        """
        left = []
        for message in messages:
            order = self.bounced(message)
            if order is not None:
                order.count(message)
                fates.admin_bounced(message, order.reason, quiet=order.quiet, report=order.report)
                continue
            order = self.message_suspended(message)
            if order is None:
                left.append(message)
                continue
            text = f"the message is suspended: {order.reason}"
            seconds = min(order.expires - self._clock.seconds(), LONGEST_SUSPENSION)
            fates.delayed(message, seconds, internal_reply(451, "4.7.1", text), "Suspended")
        return left

    def _save(self) -> None:
        """Replace the file."""
        if self._path is None:
            raise OSError("this node keeps no orders")
        if self._unsafe:
            raise OSError(self._unsafe)
        kept = [order.fields() for order in self._orders.values() if order.persist]
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)


def _longest(orders: Iterable[Order], meant: Callable[[Whom], bool]) -> Order | None:
    found = [order for order in orders if meant(order.whom)]
    return max(found, key=lambda order: order.expires, default=None)
