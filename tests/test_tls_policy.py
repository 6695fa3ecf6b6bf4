"""What a path demands of TLS."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathSettings
from kumotwist.settings import declared
from kumotwist.tls import policy
from kumotwist.tls.broken import BrokenTLS
from kumotwist.tls.dane import DANE, TLSARecord
from kumotwist.tls.policy import PolicyType, TLSDemand, TLSWish, decide, tls_demand
from kumotwist.tls.sts import STSPolicy

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


HOST = "mx.b.example"
VALUES = ("Disabled", "Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure")
USABLE = DANE(HOST, (TLSARecord(3, 1, 1, bytes(32)),), (HOST,))
UNUSABLE = DANE(HOST, (), (HOST,))
ENFORCE = STSPolicy("b.example", "enforce", ("*.b.example",), 86400)
TESTING = STSPolicy("b.example", "testing", ("*.other.example",), 86400)
OTHER = STSPolicy("b.example", "enforce", ("mx.other.example",), 86400)


def facts(demand: TLSDemand) -> tuple[bool, bool, bool]:
    """Attempt, require, verify."""
    return demand.attempt, demand.required, demand.verify


class DecisionTests(SynchronousTestCase):
    """What the destination has published, over the operator's word."""

    def test_nothing_published(self) -> None:
        """Then the operator's word is all there is."""
        for value in VALUES:
            self.assertEqual(decide(value, HOST), tls_demand(value))

    def test_dane(self) -> None:
        """Usable TLSA records decide alone, whatever the operator and MTA-STS say."""
        for value in VALUES:
            for sts in (None, ENFORCE, OTHER):
                demand = decide(value, HOST, dane=USABLE, sts=sts)
                self.assertEqual(facts(demand), (True, True, True))
                self.assertEqual((demand.dane, demand.refusal), (USABLE, ""))
                self.assertIn("DANE: TLSA records of mx.b.example", demand.reason)
                self.assertIs(demand.policy, PolicyType.DANE)

    def test_unusable_dane(self) -> None:
        """Records that cannot authenticate demand encryption, and verify only what was verified
        anyway, or what MTA-STS verifies."""
        for value in VALUES:
            demand = decide(value, HOST, dane=UNUSABLE)
            self.assertEqual(facts(demand), (True, True, value == "Required"))
            self.assertIsNone(demand.dane)
        demand = decide("Opportunistic", HOST, dane=UNUSABLE, sts=ENFORCE)
        self.assertEqual(facts(demand), (True, True, True))
        self.assertIn("only unusable", demand.reason)
        self.assertIn("MTA-STS enforce", demand.reason)

    def test_sts_enforce(self) -> None:
        """A listed host must have a valid certificate; another one is not used."""
        for value in VALUES:
            demand = decide(value, HOST, sts=ENFORCE)
            self.assertEqual((facts(demand), demand.refusal), ((True, True, True), ""))
            self.assertIs(demand.policy, PolicyType.STS)
            self.assertIn("b.example", decide(value, HOST, sts=OTHER).refusal)

    def test_sts_testing(self) -> None:
        """A policy that is being tested changes nothing, and above all lowers nothing."""
        for value in VALUES:
            demand = decide(value, HOST, sts=TESTING)
            self.assertEqual(facts(demand), facts(tls_demand(value)))
            self.assertEqual(demand.refusal, "")
            self.assertIs(demand.policy, PolicyType.STS)

    def test_wishes(self) -> None:
        """TLS-Required: No takes back what the destination has published; REQUIRETLS stays above
        everything, with DANE's idea of a good certificate where there is one."""
        for dane, sts in ((USABLE, None), (UNUSABLE, None), (None, OTHER)):
            demand = decide("Opportunistic", HOST, TLSWish.WAIVED, dane=dane, sts=sts)
            self.assertEqual(demand, tls_demand("Opportunistic", TLSWish.WAIVED))
        for dane, sts in ((USABLE, None), (UNUSABLE, None), (None, ENFORCE), (None, TESTING)):
            demand = decide("Disabled", HOST, TLSWish.REQUIRED, dane=dane, sts=sts)
            self.assertEqual((facts(demand), demand.requiretls), ((True, True, True), True))
            self.assertEqual(demand.dane, USABLE if dane is USABLE else None)
        self.assertTrue(decide("Disabled", HOST, TLSWish.REQUIRED, sts=OTHER).refusal)

    def test_broken(self) -> None:
        """A site whose TLS is known to be broken is spoken to in clear if TLS is opportunistic,
        and only then."""
        for value in VALUES:
            demand = decide(value, HOST, broken=True)
            opportunistic = value.startswith("Opportunistic")
            self.assertEqual(demand.attempt, value.startswith("Required"))
            self.assertEqual("broken" in demand.reason, opportunistic)
        for dane, sts in ((USABLE, None), (UNUSABLE, None), (None, ENFORCE)):
            self.assertTrue(decide("Opportunistic", HOST, dane=dane, sts=sts, broken=True).attempt)


class BrokenTests(SynchronousTestCase):
    """Remembering sites whose TLS does not work."""

    def test_remembered(self) -> None:
        """A site is remembered for its time, and the number of sites is bounded."""
        now = [0.0]
        broken = BrokenTLS(lambda: now[0])
        broken.remember("site", 60)
        self.assertTrue(broken.remembers("site"))
        self.assertFalse(broken.remembers("other"))
        now[0] = 60.0
        self.assertFalse(broken.remembers("site"))
        for number in range(10_002):
            broken.remember(str(number), 60)
        self.assertFalse(broken.remembers("1"))
        self.assertTrue(broken.remembers("10001"))
