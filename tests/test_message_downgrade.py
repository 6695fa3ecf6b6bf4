"""From 8 bits to 7: what is converted, what is left alone, and what is refused."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.downgrade import (
    MAX_DEPTH,
    MAX_PARTS,
    NotConvertibleError,
    downgrade,
    downgrade_binary,
)
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.outgoing import outgoing
from kumotwist.wire.smtp.capabilities import NO_CAPABILITIES
from kumotwist.wire.smtp.data import is_canonical
from tests.queue_world import World
from tests.talker import Talker

MIME = b"From: a@b.example\r\nMIME-Version: 1.0\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
UMLAUT = "Grüße\r\n".encode()
ONE_HOST = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}


def multipart(
    *parts: bytes, kind: bytes = b"mixed", head: bytes = MIME, mark: bytes = b"="
) -> bytes:
    """A multipart of these parts, each with its header."""
    body = b"".join(b"--%b\r\n%b\r\n" % (mark, part) for part in parts)
    return (
        head
        + b'Content-Type: multipart/%b;\r\n boundary="%b"\r\n\r\n' % (kind, mark)
        + b"preamble\r\n"
        + body
        + b"--%b--\r\nepilogue\r\n" % mark
    )


class ConversionTests(SynchronousTestCase):
    """What comes out, octet by octet and read by another reader."""

    def test_ascii_is_left_alone(self) -> None:
        """What has no 8-bit data is not even looked at."""
        for body in (b"", b"nonsense", MIME + b"Content-Type: (\r\n\r\nx"):
            self.assertIs(downgrade(body), body)

    def test_text(self) -> None:
        """Text becomes quoted-printable; an encoding that was declared is replaced in its place."""
        self.assertEqual(
            downgrade(MIME + b"Content-Transfer-Encoding: 8bit\r\n" + TEXT + b"\r\n" + UMLAUT),
            MIME
            + b"Content-Transfer-Encoding: quoted-printable\r\n"
            + TEXT
            + b"\r\nGr=C3=BC=C3=9Fe\r\n",
        )
        self.assertEqual(
            downgrade(MIME + TEXT + b"\r\n" + UMLAUT),
            MIME + TEXT + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n",
        )

    def test_other_types(self) -> None:
        """What is no text becomes base64."""
        body = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") * 3
        whole = MIME + b"Content-Type: image/png\r\n\r\n" + body
        converted = downgrade(whole)
        parsed = email.message_from_bytes(converted)
        self.assertEqual(parsed["Content-Transfer-Encoding"], "base64")
        self.assertEqual(parsed.get_payload(decode=True), body)

    def test_untouched_parts(self) -> None:
        """Parts in 7 bits stay as they are, octet by octet: strange ones too."""
        strange = b"content-TYPE : application/x\r\n\tfolded\r\n\r\n  a\tb \r\n=20\r\n.\r\n"
        encoded = b"Content-Transfer-Encoding: base64\r\n\r\nAAAA"
        converted = downgrade(multipart(strange, TEXT + b"\r\n" + UMLAUT, encoded, b""))
        expected = multipart(
            strange,
            TEXT + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n",
            encoded,
            b"",
        )
        self.assertEqual(converted, expected)

    def test_nested(self) -> None:
        """Multiparts and messages within others are followed; their own encoding becomes 7bit."""
        inner = multipart(TEXT + b"\r\n" + UMLAUT, head=b"", mark=b"==")
        enclosed = (
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            + MIME + TEXT + b"\r\n" + UMLAUT
        )  # fmt: skip
        converted = downgrade(
            multipart(inner, enclosed, head=MIME + b"Content-Transfer-Encoding: 8bit\r\n")
        )
        self.assertTrue(converted.isascii())
        parsed = email.message_from_bytes(converted)
        self.assertEqual(parsed["Content-Transfer-Encoding"], "7bit")
        texts = [each.get_payload(decode=True) for each in parsed.walk() if not each.is_multipart()]
        self.assertEqual([text.rstrip() for text in texts], [UMLAUT.rstrip()] * 2)  # type: ignore

    def test_signed_part_in_7_bits(self) -> None:
        """A signed part without 8-bit data does not stand in the way of another part."""
        signed = multipart(b"\r\nhi", b"\r\nsignature", kind=b"signed", head=b"", mark=b"==")
        converted = downgrade(multipart(signed, TEXT + b"\r\n" + UMLAUT))
        self.assertIn(signed, converted)
        self.assertTrue(converted.isascii())

    def test_refused(self) -> None:
        """What cannot be converted without harm is refused, with the reason."""
        deep = TEXT + b"\r\n" + UMLAUT
        for number in range(MAX_DEPTH + 1):
            deep = multipart(deep, head=b"", mark=b"=%d" % number)
        text = TEXT + b"\r\n" + UMLAUT
        for message, words in (
            (b"Subject: x\r\n\r\n" + UMLAUT, "not MIME"),
            (MIME + b"Subject: " + UMLAUT + b"\r\nhi\r\n", "in a header"),
            (multipart(text, kind=b"signed"), "multipart/signed"),
            (multipart(text, kind=b"encrypted"), "multipart/encrypted"),
            (MIME + b"Content-Type: message/partial\r\n\r\n" + UMLAUT, "message/partial"),
            (MIME + b"Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\n" + UMLAUT, "not MIME"),
            (multipart(b"\r\nA: b\r\n\r\n" + UMLAUT, kind=b"digest"), "not MIME"),
            (MIME + b"Content-Transfer-Encoding: base64\r\n\r\n" + UMLAUT, "base64"),
            (MIME + b"Content-Type: text\r\n\r\n" + UMLAUT, "cannot be read"),
            (MIME + TEXT + TEXT + b"\r\n" + UMLAUT, "two fields"),
            (MIME + b"Content-Type: multipart/mixed\r\n\r\n" + UMLAUT, "no boundary"),
            (multipart(text)[:-20], "does not end"),
            (multipart(text).replace(b"preamble", UMLAUT), "outside"),
            (multipart(text).replace(b"epilogue", UMLAUT), "outside"),
            (multipart(text, head=MIME + b"Content-Transfer-Encoding: base64\r\n"), "base64"),
            (MIME + b"Content-Type: text/x; " + b"x" * 9000 + b"\r\n\r\n" + UMLAUT, "too long"),
            (MIME + deep, "nested"),
            (multipart(*[text] * (MAX_PARTS + 1)), "parts"),
        ):
            with self.assertRaises(NotConvertibleError) as caught:
                downgrade(message)
            self.assertIn(words, str(caught.exception))

    @given(st.lists(st.text(alphabet="aä=. \t\0\u2028—", max_size=120), max_size=6))
    @settings(max_examples=150, deadline=None)
    def test_any_text(self, lines: list[str]) -> None:
        """Every text comes back as it was; its lines are short and end in nothing invisible."""
        body = "\r\n".join([*lines, "ü", ""]).encode()
        converted = downgrade(MIME + TEXT + b"\r\n" + body)
        self.assertTrue(converted.isascii())
        for line in converted.split(b"\r\n"):
            self.assertLessEqual(len(line), 76)
            self.assertFalse(line.endswith((b" ", b"\t")))
        parsed = email.message_from_bytes(converted, policy=email.policy.SMTP)
        self.assertEqual(parsed.get_payload(decode=True), body)

    @given(
        st.lists(
            st.sampled_from(
                (
                    b"--=", b"--=--", b"\r\n", b"--", b"=", b"\xc3\xbc", b"Content-Type: ",
                    b"multipart/mixed", b"; boundary=", b"message/rfc822", b" ", b"a", MIME,
                )
            ),
            max_size=30,
        )
    )  # fmt: skip
    @settings(max_examples=200, deadline=None)
    def test_any_structure(self, pieces: list[bytes]) -> None:
        """Whatever a message is made of, it is converted as a whole or refused."""
        message = MIME + b"Content-Type: multipart/x; boundary==\r\n\r\n" + b"".join(pieces)
        message = message.replace(b"boundary==\r\n", b'boundary="="\r\n')
        try:
            converted = downgrade(message)
        except NotConvertibleError:
            return
        self.assertTrue(converted.isascii())
        if message.isascii():
            self.assertEqual(converted, message)


class BinaryTests(SynchronousTestCase):
    """From any octets to text in lines (RFC 3030, 3)."""

    BINARY = b"Content-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n"

    def payloads(self, message: bytes) -> list[bytes]:
        """The decoded parts, as another reader sees them."""
        found = []
        for part in email.message_from_bytes(message).walk():
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                found.append(payload)
        return found

    def test_parts(self) -> None:
        """Binary parts become base64; text in lines is only called what it is."""
        octets = bytes(range(256)) * 5
        text = b"Content-Transfer-Encoding: BINARY\r\n\r\nhello\r\nworld"
        message = multipart(
            self.BINARY + octets,
            text,
            TEXT + b"\r\n" + UMLAUT,
            b"\r\nplain",
            b"Content-Type: text/plain\r\n\r\nlone\nlines\r",
            b"\r\n" + b"x" * 2000,
            head=MIME + b"Content-Transfer-Encoding: binary\r\n",
        )
        converted = downgrade_binary(message)
        self.assertEqual(
            self.payloads(converted),
            [
                octets,
                b"hello\r\nworld",
                UMLAUT,
                b"plain",
                b"lone\nlines\r",
                b"x" * 2000,
            ],
        )
        self.assertNotIn(b"binary", converted.lower())
        self.assertIn(b"7bit\r\n\r\nhello", converted)
        self.assertLess(max(map(len, converted.split(b"\r\n"))), 999)

    def test_left_alone(self) -> None:
        """Text in lines that does not call itself binary stays as it is, MIME or not."""
        for message in (
            b"A: b\r\n\r\n" + (b"x" * 998 + b"\r\n") * 3,
            b"A: b\r\n\r\nContent-Transfer-Encoding: binary\r\n",
            multipart(b"\r\nx", kind=b"signed"),
        ):
            self.assertIs(downgrade_binary(message), message)

    def test_refused(self) -> None:
        """What has no structure that is text cannot be converted."""
        for message in (
            b"A: b\r\n\r\n\0",
            b"A: b\r\n\r\n" + b"x" * 999,
            MIME + b"Subject: a\nb\r\n\r\n\0",
            b"\0",
            multipart(self.BINARY + b"\0", kind=b"signed"),
            multipart(b"\r\n\0").replace(b"preamble", b"pre\namble"),
            multipart(b"\r\n\0").replace(b"--=--", b"--=- "),
            MIME + b"Content-Transfer-Encoding: base64\r\n\r\n\0",
        ):
            self.assertRaises(NotConvertibleError, downgrade_binary, message)

    @given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
    @settings(max_examples=150, deadline=None)
    def test_any_octets(self, parts: list[bytes]) -> None:
        """Whatever parts hold, another reader finds the same octets in what was converted."""
        message = multipart(*[self.BINARY + part for part in parts], mark=b"=a-long-mark=")
        converted = downgrade_binary(message)
        self.assertEqual(self.payloads(converted), parts)
        self.assertTrue(converted.isascii())
        self.assertTrue(is_canonical(converted))

    @given(st.lists(st.sampled_from([
        MIME, TEXT, b"\r\n", b"--=\r\n", b"--=--\r\n", b"\0", b"\n", b"\r", b"x" * 999, b"y",
        b"Content-Transfer-Encoding: binary\r\n",
        b'Content-Type: multipart/mixed; boundary="="\r\n',
    ]), max_size=12))  # fmt: skip
    @settings(max_examples=200, deadline=None)
    def test_any_structure_of_octets(self, pieces: list[bytes]) -> None:
        """Whatever comes, it is converted to what every server takes, or refused."""
        try:
            converted = downgrade_binary(b"".join(pieces))
        except NotConvertibleError:
            return
        self.assertTrue(converted.isascii() and is_canonical(converted))
        self.assertNotIn(b"\0", converted)
        self.assertLess(max(map(len, converted.split(b"\r\n"))), 999)


class BinaryDeliveryTests(SynchronousTestCase):
    """A message that came with BODY=BINARYMIME on its way out."""

    MESSAGE = multipart(BinaryTests.BINARY + b"\0\n.\r")

    def deliver(self, body: bytes, *extensions: str, **path: object) -> tuple[World, Talker]:
        """Deliver a binary message to a host with some extensions."""
        world = World(ONE_HOST, path=path)
        talker = Talker(*extensions)
        world.network.servers["192.0.2.1", 25] = talker
        world.inject("c@b.example", body=body, body_type="BINARYMIME")
        return world, talker

    def test_passed_on(self) -> None:
        """A host that takes BINARYMIME gets every octet as it is."""
        for extensions in (("CHUNKING", "BINARYMIME"), ("CHUNKING", "BINARYMIME", "PIPELINING")):
            world, talker = self.deliver(self.MESSAGE, *extensions)
            self.assertEqual(world.kinds(), ["Delivery"])
            self.assertEqual(talker.messages, [self.MESSAGE])
            self.assertIn("MAIL FROM:<a@sender.example> BODY=BINARYMIME", talker.said)

    def test_converted(self) -> None:
        """Any other host gets text in 7 bits."""
        for extensions, path in (
            (("8BITMIME",), {}),
            (("CHUNKING", "8BITMIME"), {}),
            (("BINARYMIME",), {}),
            (("CHUNKING", "BINARYMIME"), {"enable_chunking": False}),
        ):
            world, talker = self.deliver(self.MESSAGE, *extensions, **path)
            self.assertEqual(world.kinds(), ["Delivery"])
            (sent,) = talker.messages
            self.assertIn(downgrade_binary(self.MESSAGE), sent.replace(b"\r\n.\r\n", b"\r\n"))
            self.assertNotIn("BINARYMIME", " ".join(talker.said))

    def test_refused(self) -> None:
        """What cannot be converted is returned: 5.6.3."""
        world, talker = self.deliver(b"A: b\r\n\r\n\0", "8BITMIME", "CHUNKING")
        record = world.records("Bounce")[0]
        self.assertEqual(
            record["response"]["enhanced_code"], {"class": 5, "subject": 6, "detail": 3}
        )
        self.assertEqual(talker.messages, [])

    def test_large(self) -> None:
        """A large message is converted elsewhere, a small one at once."""
        tasks: list[Callable[[], bytes]] = []
        waiting: Deferred[bytes] = Deferred()

        def run(task: Callable[[], bytes]) -> Deferred[bytes]:
            tasks.append(task)
            return waiting

        message = QueuedMessage(
            id="1" * 32, sender="", recipient="c@b.example", queue="b.example", size=0,
            created=0.0, due=0.0, body=multipart(TEXT + b"\r\n" + UMLAUT * 9000),
        )  # fmt: skip
        asked = Deferred.fromCoroutine(outgoing([message], NO_CAPABILITIES, run))
        self.assertNoResult(asked)
        waiting.callback(tasks.pop()())
        self.assertTrue(self.successResultOf(asked).body.isascii())
        message.body = multipart(TEXT + b"\r\n" + UMLAUT)
        asked = Deferred.fromCoroutine(outgoing([message], NO_CAPABILITIES, run))
        self.assertTrue(self.successResultOf(asked).body.isascii())
        self.assertEqual(tasks, [])


class DeliveryTests(SynchronousTestCase):
    """On the way to a server without 8BITMIME."""

    def deliver(self, body: bytes, *extensions: str) -> tuple[World, Talker]:
        """Send a message to a server."""
        world, talker = World(ONE_HOST), Talker(*extensions)
        world.network.servers["192.0.2.1", 25] = talker
        world.inject("c@b.example", body=body)
        return world, talker

    def test_converted(self) -> None:
        """The server gets 7 bits, declared as nothing else."""
        world, talker = self.deliver(MIME + TEXT + b"\r\n" + UMLAUT, "SIZE 0")
        self.assertEqual(world.kinds(), ["Delivery"])
        (message,) = talker.messages
        self.assertTrue(message.isascii())
        self.assertIn(f"MAIL FROM:<a@sender.example> SIZE={len(message)}", talker.said)

    def test_left_alone(self) -> None:
        """A server that takes 8 bits gets the message as it is."""
        body = MIME + TEXT + b"\r\n" + UMLAUT
        world, talker = self.deliver(body, "8BITMIME")
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual(talker.messages, [body])
        self.assertIn("MAIL FROM:<a@sender.example> BODY=8BITMIME", talker.said)

    def test_refused(self) -> None:
        """What cannot be converted is returned with 5.6.3, and never sent raw."""
        world, talker = self.deliver(multipart(TEXT + b"\r\n" + UMLAUT, kind=b"signed"))
        self.assertEqual(world.kinds()[0], "Bounce")
        self.assertIn("8BITMIME", world.records()[0]["response"]["content"])
        self.assertEqual(talker.messages, [])
