"""Tests of the parameters of RFC 3461, from the command line on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.dsn import parse_envid, parse_notify, parse_orcpt, parse_ret
from kumotwist.wire.smtp.syntax import CommandSyntaxError, decode_xtext
from tests.test_wire_smtp_server import HELLO, lines, talk


class ParameterTests(SynchronousTestCase):
    """RET, ENVID, NOTIFY and ORCPT."""

    def test_ret(self) -> None:
        """FULL or HDRS, in any case."""
        self.assertEqual((parse_ret("full"), parse_ret("HDRS")), ("FULL", "HDRS"))
        for wrong in (None, "", "HALF", "FULL,HDRS"):
            self.assertRaises(CommandSyntaxError, parse_ret, wrong)

    def test_envid(self) -> None:
        """Bounded xtext."""
        self.assertEqual(parse_envid("QQ+2B314"), "QQ+314")
        for wrong in (None, "", "x" * 101, "a+0D+0Ab", "a+2b", "a+2", "a+", "+FF", "+00"):
            self.assertRaises(CommandSyntaxError, parse_envid, wrong)

    def test_notify(self) -> None:
        """NEVER stands alone, the others in any order, none of them twice."""
        self.assertEqual(parse_notify("never"), frozenset())
        self.assertEqual(parse_notify("Success,FAILURE"), {"SUCCESS", "FAILURE"})
        for wrong in (None, "", "NEVER,DELAY", "DELAY,DELAY", "DELAY,", ",DELAY", "FAIL"):
            self.assertRaises(CommandSyntaxError, parse_notify, wrong)

    def test_orcpt(self) -> None:
        """A type and bounded xtext; addresses of type utf-8 have escapes of their own."""
        self.assertEqual(parse_orcpt("RFC822;a+2Bb@c.d"), "rfc822;a+b@c.d")
        self.assertEqual(parse_orcpt("utf-8;j\\x{FC}@c.d"), "utf-8;j\\x{FC}@c.d")
        for raw, form in (
            ("jü+x@ö.d", r"j\x{FC}\x{2B}x@\x{F6}.d"),
            (r"jü\x{FC}@c.d", r"j\x{FC}\x{FC}@c.d"),
            ("\U0001f600@c.d", r"\x{1F600}@c.d"),
            (r"a\x{G}\b@c.d", r"a\x{5C}x{G}\x{5C}b@c.d"),
        ):
            self.assertEqual(parse_orcpt(f"UTF-8;{raw}"), f"utf-8;{form}")
        for wrong in (
            None, "", "rfc822", "rfc822;", ";a@b", "rfc 822;a@b", "rfc822;" + "a" * 500,
            "rfc822;a+0A@b", "rfc822;a=b", "x+y;a",
        ):  # fmt: skip
            self.assertRaises(CommandSyntaxError, parse_orcpt, wrong)

    @settings(max_examples=100)
    @given(st.text(max_size=40))
    def test_xtext(self, text: str) -> None:
        """xtext decodes to what can be printed, or not at all."""
        try:
            decoded = decode_xtext(text)
        except CommandSyntaxError:
            return
        self.assertTrue(decoded.isascii() and decoded.isprintable())

    def test_commands(self) -> None:
        """They are taken where they belong, and checked."""
        for mail, code in (
            ("RET=FULL ENVID=x", 250), ("RET=x", 501), ("ENVID=", 501), ("ENVID", 501),
            ("RET=FULL RET=FULL", 501), ("NOTIFY=NEVER", 555),
        ):  # fmt: skip
            self.assertEqual(talk(HELLO + lines(f"MAIL FROM:<a@b.c> {mail}")), [250, code], mail)
        for rcpt, code in (
            ("NOTIFY=NEVER ORCPT=rfc822;x@y.z", 250), ("NOTIFY=NEVER,FAILURE", 501),
            ("ORCPT=x", 501), ("RET=FULL", 555),
        ):  # fmt: skip
            data = HELLO + lines("MAIL FROM:<>", f"RCPT TO:<a@b.c> {rcpt}")
            self.assertEqual(talk(data), [250, 250, code], rcpt)
