"""What a path demands of TLS."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathSettings
from kumotwist.settings import declared
from kumotwist.tls import policy
from kumotwist.tls.policy import TLSWish, tls_demand

#: What the table in the module's docstring says of each value, by its columns.
NOT_OFFERED = {"clear": False, "next host": True}


class DemandTests(SynchronousTestCase):
    """The five values of C{enable_tls}."""

    def table(self) -> dict[str, list[str]]:
        """The table in the module's docstring."""
        rows = re.findall(r"(?m)^([A-Z]\w+) {2,}(.+)$", policy.__doc__ or "")
        return {name: re.split(r" {2,}", rest.strip()) for name, rest in rows}

    def test_table(self) -> None:
        """Each row of the documentation is what the code demands."""
        table = self.table()
        self.assertEqual(len(table), 5)
        for value, (not_offered, not_valid, fails) in table.items():
            demand = tls_demand(value)
            self.assertEqual(demand.required, NOT_OFFERED[not_offered], value)
            self.assertEqual(demand.verify, not_valid == "next host", value)
            self.assertEqual(demand.attempt, fails == "next host", value)

    def test_every_value(self) -> None:
        """The values are those that a path can be given, and each is in the table."""
        kind = declared(PathSettings)["enable_tls"][1].kind
        for value in self.table():
            self.assertEqual(kind.parse(value), value)
        self.assertRaises(ValueError, kind.parse, "Sometimes")

    def test_reason(self) -> None:
        """A demand says where it comes from."""
        self.assertEqual(tls_demand("Required").reason, "enable_tls = Required")


class WishTests(SynchronousTestCase):
    """What a message's sender wants over that (RFC 8689)."""

    VALUES = ("Disabled", "Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure")

    def test_required(self) -> None:
        """With REQUIRETLS nothing but a verified session with a host that offers it will do."""
        for value in self.VALUES:
            demand = tls_demand(value, TLSWish.REQUIRED)
            self.assertTrue(
                demand.attempt and demand.required and demand.verify and demand.requiretls
            )
            self.assertIsNone(demand.after_failed_handshake(True))

    def test_waived(self) -> None:
        """With C{TLS-Required: No} only what the operator demands is left."""
        demand = tls_demand("Opportunistic", TLSWish.WAIVED)
        self.assertEqual((demand.attempt, demand.required, demand.verify), (True, False, False))
        self.assertIsNotNone(demand.after_failed_handshake(False))
        for value in ("Disabled", "Required", "RequiredInsecure"):
            self.assertEqual(tls_demand(value, TLSWish.WAIVED), tls_demand(value))


class AfterFailureTests(SynchronousTestCase):
    """A handshake that failed."""

    def test_never_without_leave(self) -> None:
        """Without C{opportunistic_tls_reconnect_on_failed_handshake} there is no second try."""
        for value in ("Disabled", "Opportunistic", "OpportunisticInsecure", "Required"):
            self.assertIsNone(tls_demand(value).after_failed_handshake(False))

    def test_opportunistic(self) -> None:
        """With it, an opportunistic path sends in clear over a new connection, once."""
        for value in ("Opportunistic", "OpportunisticInsecure"):
            demand = tls_demand(value).after_failed_handshake(True)
            assert demand is not None
            self.assertFalse(demand.attempt or demand.required or demand.verify)
            self.assertIn("clear after a failed handshake", demand.reason)
            self.assertIsNone(demand.after_failed_handshake(True))

    def test_required(self) -> None:
        """What is required is never sent in clear."""
        for value in ("Required", "RequiredInsecure"):
            self.assertIsNone(tls_demand(value).after_failed_handshake(True))
