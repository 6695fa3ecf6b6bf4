"""Where TLSA records are looked for, and when they count (RFC 7672, 2.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSError, DNSSettings, Resolver, TLSARecords
from kumotwist.dns.settings import parse_hosts
from kumotwist.testing.dns import FakeAsker, FakeResolver

DIGEST = "00" * 32
TLSA = [f"TLSA 3 1 1 {DIGEST}"]
RECORDS: dict[str, Sequence[str]] = {
    "mx.b.example": ["A 192.0.2.1"],
    "_25._tcp.mx.b.example": TLSA,
    "alias.b.example": ["CNAME mx.b.example"],
    "_25._tcp.alias.b.example": [f"TLSA 2 1 1 {DIGEST}"],
    "out.b.example": ["CNAME mx.plain.example"],
    "_25._tcp.out.b.example": TLSA,
    "mx.plain.example": ["A 192.0.2.2"],
    "_25._tcp.mx.plain.example": TLSA,
    "bare.b.example": ["AAAA 2001:db8::1"],
}


class TLSATests(SynchronousTestCase):
    """L{Resolver.lookup_tlsa}."""

    def resolver(
        self,
        records: Mapping[str, Sequence[str]] | None = None,
        fail: Collection[str] = (),
    ) -> FakeResolver:
        """A resolver whose C{plain.example} is not signed."""
        return FakeResolver(records or RECORDS, dict.fromkeys(fail, "SERVFAIL"), ["plain.example"])

    def find(self, host: str, fail: Collection[str] = ()) -> TLSARecords | None:
        """Look up."""
        return self.successResultOf(self.resolver(fail=fail).lookup_tlsa(host, 25))

    def test_records(self) -> None:
        """A signed host's records come with the name that they stand at."""
        found = self.find("MX.b.example.")
        self.assertEqual(found, TLSARecords("mx.b.example", ((3, 1, 1, bytes(32)),)))
        self.assertIsNone(self.successResultOf(self.resolver().lookup_tlsa("mx.b.example", 26)))

    def test_none(self) -> None:
        """A host without records has none, even if the name does not exist."""
        self.assertIsNone(self.find("bare.b.example"))

    def test_unsigned(self) -> None:
        """A host that nobody vouches for is not even asked about its records."""
        resolver = self.resolver()
        self.assertIsNone(self.successResultOf(resolver.lookup_tlsa("mx.plain.example", 25)))
        self.assertEqual(resolver.questions, ["A of mx.plain.example", "AAAA of mx.plain.example"])

    def test_alias(self) -> None:
        """Of an alias the records of what it stands for count, then its own."""
        found = self.find("alias.b.example")
        self.assertEqual(found, TLSARecords("mx.b.example", ((3, 1, 1, bytes(32)),)))
        records = {name: lines for name, lines in RECORDS.items() if name[:8] != "_25._tcp"}
        records["_25._tcp.alias.b.example"] = TLSA
        resolver = self.resolver(records)
        found = self.successResultOf(resolver.lookup_tlsa("alias.b.example", 25))
        assert found is not None
        self.assertEqual(found.base_domain, "alias.b.example")

    def test_alias_to_unsigned(self) -> None:
        """Of a signed alias of an unsigned host only its own records count."""
        found = self.find("out.b.example")
        assert found is not None
        self.assertEqual(found.base_domain, "out.b.example")

    def test_failure(self) -> None:
        """Where the look-up fails nothing is known, and the host must not be used."""
        for broken in ("_25._tcp.mx.b.example", "mx.b.example"):
            result = self.resolver(fail=[broken]).lookup_tlsa("mx.b.example", 25)
            self.assertFalse(self.failureResultOf(result, DNSError).value.permanent)

    def test_failure_of_unsigned(self) -> None:
        """Name servers of unsigned zones may fail at such questions: nobody asks them."""
        self.assertIsNone(self.find("mx.plain.example", fail=["_25._tcp.mx.plain.example"]))

    def test_no_names(self) -> None:
        """Addresses and configured hosts have no records; too long a name has none either."""
        for host in ("192.0.2.1", "2001:db8::1"):
            self.assertIsNone(self.find(host))
        settings = DNSSettings(hosts=parse_hosts("192.0.2.1 mx.b.example"))
        resolver = Resolver(None, settings, asker=FakeAsker(RECORDS, insecure=()))
        self.assertIsNone(self.successResultOf(resolver.lookup_tlsa("mx.b.example", 25)))
        long = ".".join(["a" * 60] * 4) + ".example"
        records = {long: ["A 192.0.2.1"]}
        self.assertIsNone(self.successResultOf(self.resolver(records).lookup_tlsa(long, 25)))
