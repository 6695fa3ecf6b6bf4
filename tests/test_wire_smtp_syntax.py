"""Tests of the syntax of paths, addresses and parameters."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.syntax import (
    CommandSyntaxError,
    ascii_domain,
    domain_of,
    parse_mailbox,
    parse_parameters,
    parse_path,
)


class PathTests(SynchronousTestCase):
    """What stands between the angle brackets of MAIL and RCPT."""

    def test_ordinary(self) -> None:
        """An address is taken out of its brackets, what follows is handed back."""
        self.assertEqual(parse_path("<a.b@c.example> SIZE=3"), ("a.b@c.example", " SIZE=3"))

    def test_null_sender(self) -> None:
        """The null sender is an address where it is allowed, and only there."""
        self.assertEqual(parse_path("<>", null=True), ("", ""))
        self.assertRaises(CommandSyntaxError, parse_path, "<>")

    def test_postmaster(self) -> None:
        """A recipient may be postmaster without a domain, in any case; a sender may not."""
        self.assertEqual(parse_path("<PostMaster>"), ("PostMaster", ""))
        self.assertRaises(CommandSyntaxError, parse_path, "<postmaster>", null=True)

    def test_source_route(self) -> None:
        """A source route is read and dropped; one that is not well formed is refused."""
        self.assertEqual(parse_path("<@a.example,@b.example:c@d.example>"), ("c@d.example", ""))
        for text in ("<@a,c@d>", "<@a:@b:c@d>", "<@a@b:c@d>", "<@a:>", "<@a,:c@d>"):
            self.assertRaises(CommandSyntaxError, parse_path, text)

    def test_accepted(self) -> None:
        """Forms that look odd and are allowed."""
        for address in (
            '"a b@c"@d.example',
            '"\\""@d.example',
            '""@d.example',
            "a+b=c/d@e.example",
            "`id`@e.example",
            "${run{x}}@e.example",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@xn--bcher-kva.example",
            "a@3com.example",
            "j\u00fcrgen@b\u00fccher.example",
        ):
            self.assertEqual(parse_path(f"<{address}>"), (address, ""))

    def test_refused(self) -> None:
        """Forms that are no path, among them those that relays have been tricked with."""
        for text in (
            "a@b.example",
            "<a@b.example",
            "a@b.example>",
            "<<a@b.example>>",
            "<a@b.example><c@d.example>",
            "<a@b@c.example>",
            "<a>",
            "<@b.example>",
            "<a@>",
            "<.a@b.example>",
            "<a.@b.example>",
            "<a..b@c.example>",
            "<a b@c.example>",
            '<"a@b.example>',
            '<"a"b@c.example>',
            "<a@-b.example>",
            "<a@b-.example>",
            "<a@b..example>",
            "<a@b.example.>",
            "<a@b_c.example>",
            "<a@[192.0.2.1]:25>",
            "<a@[192.0.2.1>",
            "<a@[192.0.2.256]>",
            "<a@[IPv6:::g]>",
            "<a@[x400:c]>",
            "<a@192.0.2.1>",
            "<a@\uff11\uff12\uff17.0.0.1>",
            "<a@b.example>x",
            "<a\x00@b.example>",
            "<a@b.example\r>",
            '<"a\n"@b.example>',
            "<a@\u202eb.example>",
            "",
        ):
            self.assertRaises(CommandSyntaxError, parse_path, text)

    def test_lengths(self) -> None:
        """Local part, domain and path have the limits of RFC 5321, in octets."""
        local = "a" * 64
        domain = ".".join(["b" * 61] * 3) + ".ex"  # 188
        self.assertEqual(parse_path(f"<{local}@{domain}>")[0], f"{local}@{domain}")
        longest = f"a@{'.'.join(['b' * 62] * 3)}.{'c' * 63}"  # 254, with brackets 256
        self.assertEqual(parse_path(f"<{longest}>")[0], longest)
        for address in (
            f"{'a' * 65}@b.example",
            "\u00fc" * 33 + "@b.example",
            f"a@{'b' * 64}.example",
            f"a{longest}",
            f"a@{'.'.join(['b' * 63] * 4)}.c",
        ):
            self.assertRaises(CommandSyntaxError, parse_path, f"<{address}>")

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet='<>@:,."\\[]ab1-_ \r\n\u00fc%!', max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is a path or a syntax error, and a path holds no brackets and no line ends."""
        try:
            address, rest = parse_path(text)
        except CommandSyntaxError:
            return
        self.assertEqual(rest, text[len(text) - len(rest) :])
        self.assertNotIn("\r", address)
        self.assertNotIn("\n", address)
        if "@" in address:
            self.assertEqual(str(parse_mailbox(address)), address)


class MailboxTests(SynchronousTestCase):
    """Addresses without brackets."""

    def test_parts(self) -> None:
        """A mailbox has a local part and a domain; quotes hide nothing."""
        mailbox = parse_mailbox('"a@\\"b"@c.example')
        self.assertEqual(mailbox.domain, "c.example")
        self.assertEqual(mailbox.unquoted_local_part, 'a@"b')
        self.assertEqual(parse_mailbox("a@b.example").unquoted_local_part, "a")

    def test_no_injection(self) -> None:
        """Nothing that could leave its place in a command is an address."""
        for text in ("a@b.example>", "a@b.example\r\nDATA", "a@b.example\n", "<a@b.example>", ""):
            self.assertRaises(CommandSyntaxError, parse_mailbox, text)

    def test_domain(self) -> None:
        """Domains are compared in lower case and A-labels, literals in their canonical form."""
        self.assertEqual(domain_of("a@B.Example"), "b.example")
        self.assertEqual(domain_of('"a@x"@b.example'), "b.example")
        self.assertEqual(domain_of("a@B\u00dcCHER.example"), "xn--bcher-kva.example")
        self.assertEqual(domain_of("a@[ipv6:2001:DB8:0::1]"), "[IPv6:2001:db8::1]")
        self.assertEqual(domain_of(""), "")
        self.assertEqual(domain_of("postmaster"), "")

    def test_no_domain(self) -> None:
        """What is neither a domain nor a literal is refused."""
        for text in ("a\u2014\ud7a4.example", "[1.2.3]", "1.2.3.4", "x" * 64):
            self.assertRaises(CommandSyntaxError, ascii_domain, text)


class ParameterTests(SynchronousTestCase):
    """The parameters of MAIL and RCPT."""

    def test_ordinary(self) -> None:
        """Keywords are read in any case; they may have a value."""
        self.assertEqual(
            parse_parameters(" size=10 BODY=8BITMIME  SMTPUTF8"),
            {"SIZE": "10", "BODY": "8BITMIME", "SMTPUTF8": None},
        )
        self.assertEqual(parse_parameters(""), {})

    def test_refused(self) -> None:
        """A keyword twice, an empty value, a second equals sign, a strange keyword."""
        for text in (" SIZE=1 size=2", " SIZE=", " A=b=c", " =x", " -A", " A_B=1", " <a@b>"):
            self.assertRaises(CommandSyntaxError, parse_parameters, text)
