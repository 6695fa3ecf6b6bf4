"""Hostile servers: what each says, and the verdict on it, which is the same on every path.

A verdict is written as in docs/failures.md: how far it reaches, how it ends, whether an attempt is
charged, whom it blames, whether a copy may come of it; behind the arrow are the record types and
the attempts that the message counts afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tests.hostile.scripted_host import CLOSE, DEAF, HANG, RESET, TLS, Drip, Pause, Turn

__all__ = ["SERVERS", "HostileServer"]

DELIVERED = "delivered -> Delivery 0"
HOST = "host temporary charged host -> TransientFailure 1"
NOBODY = "host temporary charged nobody -> TransientFailure 1"
LATER = "message temporary charged message -> TransientFailure 1"
NEVER = "message permanent charged message -> Bounce 1"
CUT = "message temporary charged host -> TransientFailure 1"
DUPLICATE = "message temporary charged host duplicate -> TransientFailure 1"
RCPT_LATER = "recipient temporary charged message -> TransientFailure 1"
RCPT_NEVER = "recipient permanent charged message -> Bounce 1"

#: More than a client hands over before it has read a reply.
LARGE = 24 << 20
#: More than the sockets of any path hold: newer kernels let one have 32 MiB.
LARGEST = 64 << 20

PIPELINING = ("PIPELINING", "ENHANCEDSTATUSCODES")
NOTHING: tuple[str, ...] = ()
CHUNKING = ("PIPELINING", "CHUNKING")
STARTTLS = ("PIPELINING", "STARTTLS")
INSECURE = {"enable_tls": "OpportunisticInsecure"}
VERIFIED = {"enable_tls": "Opportunistic"}
LOGIN = {
    "smtp_auth_plain_username": "me",
    "smtp_auth_plain_password": "secret",
    "allow_smtp_auth_plain_without_tls": "yes",
}
LMTP = {"protocol": "lmtp"}
BRIEF = {"idle_timeout": "0.2s"}


@attrs.define(frozen=True)
class HostileServer:
    """A server, what is sent to it, and what comes of it.

    @ivar name: what it does.
    @ivar expected: the verdict for each message and recipient, in their order.
    @ivar turns: what it says; see L{tests.hostile.scripted_host}.
    @ivar says: a part of the reply that the last record quotes.
    @ivar suspects: HAProxy cannot say what happened, and so is suspected besides.
    @ivar taken: how many messages it has seen to their end afterwards.
    """

    name: str
    expected: tuple[str, ...]
    turns: Mapping[str, Turn | list[Turn]] = attrs.field(factory=dict)
    says: str = ""
    offers: tuple[str, ...] = PIPELINING
    tls_offers: tuple[str, ...] | None = None
    certificate: str = "good"
    forgetful: bool = False
    path: Mapping[str, str] = attrs.field(factory=dict)
    queue: Mapping[str, str] = attrs.field(factory=dict)
    recipients: int = 1
    messages: int = 1
    size: int = 0
    suspects: bool = False
    taken: int | None = None


def server(name: str, *expected: str, **facts: object) -> HostileServer:
    """A server whose verdicts are those."""
    return HostileServer(name, expected, **facts)  # type: ignore[arg-type]


GREETINGS = (
    server("banner-450", HOST, turns={"banner": (b"450 busy\r\n",)}, says="450 busy"),
    server("banner-554", HOST, turns={"banner": (b"554 go away\r\n",)}, says="554 go away"),
    server("banner-421", HOST, turns={"banner": (b"421 closing\r\n", CLOSE)}, says="421 closing"),
    server("banner-354", HOST, turns={"banner": (b"354 go on\r\n",)}, says="protocol error"),
    server("banner-200", DELIVERED, turns={"banner": (b"200 odd\r\n",)}),
    server(
        "banner-none", HOST, turns={"banner": (HANG,)}, suspects=True,
        path={"banner_timeout": "1s"}, says="timed out after 1 s",
    ),
    server("banner-close", HOST, turns={"banner": (CLOSE,)}, suspects=True),
    server("banner-reset", HOST, turns={"banner": (RESET,)}, suspects=True),
    server("banner-half-close", HOST, turns={"banner": (b"220 mx", CLOSE)}, says="lost connection"),
    server(
        "banner-split", DELIVERED,
        turns={"banner": (b"220 m", Pause(0.1), b"x\r", Pause(0.1), b"\n")},
    ),
    server("banner-octets", DELIVERED, turns={"banner": (Drip(b"220 mx ESMTP\r\n", 0.01),)}),
    server("banner-lines", DELIVERED, turns={"banner": (b"220-x\r\n" * 99 + b"220 \r\n",)}),
    server("banner-megabytes", HOST, turns={"banner": (b"220-spam\r\n" * 400_000,)}, says="lines"),
    server("banner-long-line", HOST, turns={"banner": (b"220 " + b"x" * (4 << 20),)}, says="65536"),
    server("banner-ssh", HOST, turns={"banner": (b"SSH-2.0-OpenSSH_9.2\r\n",)}, says="not a reply"),
    server("banner-http", HOST, turns={"banner": (b"HTTP/1.1 400\r\n\r\n",)}, says="not a reply"),
    server("banner-noise", HOST, turns={"banner": (bytes(range(256)) * 40,)}, says="not a reply"),
    server("banner-tls-alert", HOST, turns={"banner": (b"\x15\x03\x03\x00\x02\x02\x28",)}),
    server("banner-bare-lf", DELIVERED, turns={"banner": (b"220 mx\n",)}),
    server(
        "banner-slow", HOST, turns={"banner": (Drip(b"220 mx.example.test\r\n", 1),)},
        path={"banner_timeout": "2s"}, says="timed out after 2 s",
    ),
    server(
        "banner-and-more", HOST,
        turns={"banner": (b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n",)}, says="protocol error",
    ),
)  # fmt: skip

HELLOS = (
    server("ehlo-500-helo", DELIVERED, turns={"EHLO": (b"500 what?\r\n",)}),
    server(
        "ehlo-500-helo-550", HOST, says="550 nor that",
        turns={"EHLO": (b"500 what?\r\n",), "HELO": (b"550 nor that\r\n",)},
    ),
    server("ehlo-451", HOST, turns={"EHLO": (b"451 later\r\n",)}, says="451 later"),
    server("ehlo-421", HOST, turns={"EHLO": (b"421 closing\r\n", CLOSE)}, says="421 closing"),
    server("ehlo-close", HOST, turns={"EHLO": (CLOSE,)}, says="EHLO"),
    server("ehlo-reset", HOST, turns={"EHLO": (RESET,)}, says="EHLO"),
    server(
        "ehlo-silence", HOST, turns={"EHLO": (HANG,)}, path={"ehlo_timeout": "1s"},
        says="timed out after 1 s",
    ),
    server(
        "ehlo-garbage", DELIVERED,
        turns={
            "EHLO": (
                b"250-\x00\xff\x1b[31m\r\n250-SIZE many\r\n250-SIZE -1\r\n250-AUTH=\r\n250-\r\n"
                b"250-LIMITS RCPTMAX=0 MAILMAX=x\r\n250-8BITMIME=yes\r\n250 PIPELINING indeed\r\n",
            )
        },
    ),
    server("ehlo-endless", HOST, turns={"EHLO": (b"250-X\r\n" * 300,)}, says="128 lines"),
    server(
        "ehlo-never-ends", HOST, turns={"EHLO": (b"250-mx\r\n250-PIPELINING\r\n",)},
        path={"ehlo_timeout": "1s"}, says="timed out after 1 s",
    ),
    server(
        "ehlo-drips-for-ever", HOST, turns={"EHLO": (Drip(b"250-mx\r\n" * 9, 0.2),)},
        path={"ehlo_timeout": "1s"}, says="timed out after 1 s",
    ),
    server("ehlo-999", HOST, turns={"EHLO": (b"999 hi\r\n",)}, says="not a reply"),
    server("ehlo-150", HOST, turns={"EHLO": (b"150 hi\r\n",)}, says="not a reply"),
    server("ehlo-25", HOST, turns={"EHLO": (b"25 hi\r\n",)}, says="not a reply"),
    server("ehlo-2500", HOST, turns={"EHLO": (b"2500 hi\r\n",)}, says="not a reply"),
    server("ehlo-334", HOST, turns={"EHLO": (b"334 eh\r\n",)}, says="protocol error"),
    server("ehlo-mixed", HOST, turns={"EHLO": (b"250-mx\r\n550 no\r\n",)}, says="250 and 550"),
    server("ehlo-nul", DELIVERED, turns={"EHLO": (b"250-m\x00x\r\n250 \xff\xfe\x00\r\n",)}),
    server("ehlo-bare-lf", DELIVERED, turns={"EHLO": (b"250-mx\n250 PIPELINING\n",)}),
    server("ehlo-twice", HOST, turns={"EHLO": (b"250 mx\r\n250 mx\r\n",)}, says="protocol error"),
    server("ehlo-empty", DELIVERED, turns={"EHLO": (b"250\r\n",)}),
)  # fmt: skip

SECURITY = (
    server(
        "starttls-502", HOST, turns={"STARTTLS": (b"502 no\r\n",)}, offers=STARTTLS, path=INSECURE,
        says="502 no",
    ),
    server(
        "starttls-454", HOST, turns={"STARTTLS": (b"454 4.7.0 later\r\n",)}, offers=STARTTLS,
        path=VERIFIED, says="later",
    ),
    server(
        "starttls-421", HOST, turns={"STARTTLS": (b"421 closing\r\n", CLOSE)}, offers=STARTTLS,
        path=INSECURE, says="421 closing",
    ),
    server(
        "starttls-garbage", HOST, turns={"STARTTLS": (b"what\r\n",)}, offers=STARTTLS,
        path=INSECURE, says="not a reply",
    ),
    server(
        "starttls-injection", HOST, offers=STARTTLS, path=INSECURE, says="plain text behind",
        turns={"STARTTLS": (b"220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n", TLS)},
    ),
    server(
        "starttls-no-tls-behind", HOST, offers=STARTTLS, path=INSECURE,
        turns={"STARTTLS": (b"220 go\r\n", Pause(0.3), b"250 hi\r\n")},
    ),
    server(
        "starttls-hang", HOST, turns={"STARTTLS": (b"220 go\r\n", HANG)}, offers=STARTTLS,
        path={**INSECURE, "starttls_timeout": "1s"}, says="timed out after 1 s",
    ),
    server(
        "starttls-close", HOST, turns={"STARTTLS": (b"220 go\r\n", Pause(0.2), CLOSE)},
        offers=STARTTLS, path=INSECURE, says="TLS",
    ),
    server(
        "starttls-reset", HOST, turns={"STARTTLS": (b"220 go\r\n", Pause(4), RESET)},
        offers=STARTTLS, path=INSECURE, says="TLS",
    ),
    server("tls-good", DELIVERED, offers=STARTTLS, path=VERIFIED),
    server(
        "tls-wrong-name", HOST, offers=STARTTLS, certificate="wrong",
        path=VERIFIED, says="is not for 127.0.0.1",
    ),
    server(
        "tls-expired", HOST, offers=STARTTLS, certificate="expired",
        path={"enable_tls": "Required"}, says="has expired",
    ),
    server(
        "tls-stranger", HOST, offers=STARTTLS, certificate="stranger",
        path=VERIFIED, says="certificate",
    ),
    server(
        "tls-expired-who-cares", DELIVERED, offers=STARTTLS, certificate="expired",
        path=INSECURE,
    ),
    server("tls-missing", HOST, path={"enable_tls": "RequiredInsecure"}, says="STARTTLS"),
    server(
        "tls-nothing-behind", DELIVERED, offers=(*STARTTLS, "SIZE 9", "CHUNKING"), tls_offers=(),
        path=INSECURE,
    ),
    server(
        "tls-ehlo-500", DELIVERED, offers=STARTTLS, turns={"EHLO over TLS": (b"500 no\r\n",)},
        path=INSECURE,
    ),
    server(
        "tls-banner-again", HOST, offers=STARTTLS, path=INSECURE,
        turns={"EHLO over TLS": (b"220 mx again\r\n250 mx\r\n",)}, says="protocol error",
    ),
    server("auth-535", NOBODY, offers=("AUTH PLAIN",), path=LOGIN, says="535",
           turns={"AUTH": (b"535 5.7.8 no\r\n",)}),
    server("auth-454", NOBODY, offers=("AUTH PLAIN",), path=LOGIN, says="454",
           turns={"AUTH": (b"454 4.7.0 later\r\n",)}),
    server("auth-421", NOBODY, offers=("AUTH PLAIN",), path=LOGIN, says="421",
           turns={"AUTH": (b"421 closing\r\n", CLOSE)}),
    server("auth-not-offered", NOBODY, path=LOGIN, says="not"),
    server("auth-unknown", NOBODY, offers=("AUTH GSSAPI XYZ",), path=LOGIN),
    server(
        "auth-loop", HOST, offers=("AUTH LOGIN",), path=LOGIN,
        turns={"AUTH": (b"334 VXNlcm5hbWU6\r\n" * 1000,)}, says="protocol error",
    ),
    server(
        "auth-plain-loop", HOST, offers=("AUTH PLAIN",), path=LOGIN,
        turns={"AUTH": (b"334 \r\n",), "REPLY": (b"334 \r\n",)}, says="logging in",
    ),
    server(
        "auth-long-challenge", HOST, offers=("AUTH SCRAM-SHA-256",), path=LOGIN,
        turns={"AUTH": (b"334 " + b"QUFB" * 30_000 + b"\r\n",)}, says="logging in",
    ),
    server(
        "auth-not-base64", HOST, offers=("AUTH SCRAM-SHA-256",), path=LOGIN,
        turns={"AUTH": (b"334 ***\r\n",)}, says="base64",
    ),
    server(
        "auth-scram-forged", HOST, offers=("AUTH SCRAM-SHA-256",), path=LOGIN,
        turns={"AUTH": (b"235 2.7.0 whoever you are\r\n",)}, says="logging in",
    ),
    server("auth-hang", HOST, offers=("AUTH PLAIN",), path={**LOGIN, "auth_timeout": "1s"},
           turns={"AUTH": (HANG,)}, says="timed out after 1 s"),
)  # fmt: skip

ENVELOPES = (
    server("mail-450", LATER, turns={"MAIL": (b"450 later\r\n",)}, says="450 later"),
    server("mail-550", NEVER, turns={"MAIL": (b"550 never\r\n",)}, says="550 never"),
    server("mail-552", NEVER, turns={"MAIL": (b"552 5.3.4 large\r\n",)}, says="large"),
    server("mail-503", LATER, turns={"MAIL": (b"503 lost\r\n",)}, says="503"),
    server("mail-530", LATER, turns={"MAIL": (b"530 5.7.0 login\r\n",)}, says="530"),
    server("mail-421", HOST, turns={"MAIL": (b"421 closing\r\n", CLOSE)}, says="421"),
    server("mail-354", HOST, turns={"MAIL": (b"354 go\r\n",)}, says="no answer to MAIL"),
    server("mail-close", HOST, turns={"MAIL": (CLOSE,)}, says="MAIL FROM"),
    server("mail-reset", HOST, turns={"MAIL": (RESET,)}, says="MAIL FROM", offers=NOTHING),
    server("mail-hang", HOST, turns={"MAIL": (HANG,)}, path={"mail_from_timeout": "1s"}),
    server("mail-mixed", HOST, turns={"MAIL": (b"250-a\r\n450 b\r\n",)}, says="250 and 450"),
    server("mail-7bit", HOST, turns={"MAIL": (b"\xb2\xb5\xb0 ok\r\n",)}, says="not a reply"),
    server("mail-close-after", HOST, offers=NOTHING, turns={"MAIL": (b"250 ok\r\n", CLOSE)}),
    server(
        "pipelining-is-a-lie", HOST, forgetful=True, path={"rcpt_to_timeout": "1s"}, says="RCPT TO"
    ),
    server(
        "pipelining-resets", HOST, turns={"MAIL": (b"250 ok\r\n", RESET)}, says="lost connection"
    ),
    server("rcpt-550", RCPT_NEVER, turns={"RCPT": (b"550 5.1.1 who?\r\n",)}, says="who?"),
    server("rcpt-450", RCPT_LATER, turns={"RCPT": (b"450 4.2.1 away\r\n",)}, says="away"),
    server("rcpt-552", RCPT_LATER, turns={"RCPT": (b"552 many\r\n",)}, says="many"),
    server(
        "rcpt-mixed", DELIVERED, RCPT_NEVER, RCPT_LATER, DELIVERED, recipients=4, taken=1,
        turns={"RCPT": [(b"250 ok\r\n",), (b"550 no\r\n",), (b"450 hm\r\n",), (b"251 fwd\r\n",)]},
    ),
    server(
        "rcpt-mixed-unpipelined", RCPT_NEVER, DELIVERED, recipients=2, offers=NOTHING, taken=1,
        turns={"RCPT": [(b"550 no\r\n",), (b"252 perhaps\r\n",)]},
    ),
    server(
        "rcpt-one-at-a-time", DELIVERED, DELIVERED, recipients=2, taken=2,
        turns={"RCPT": [(b"250 ok\r\n",), (b"452 4.5.3 enough\r\n",), (b"250 ok\r\n",)]},
    ),
    server(
        "rcpt-421", HOST, HOST, recipients=2, taken=0,
        turns={"RCPT": [(b"250 ok\r\n",), (b"421 closing\r\n", CLOSE)]},
    ),
    server(
        "rcpt-550-then-reset", RCPT_NEVER, HOST, recipients=2, taken=0,
        turns={"RCPT": [(b"550 no\r\n",), (Pause(4), RESET)]},
    ),
    server("rcpt-close", HOST, turns={"RCPT": (CLOSE,)}, says="RCPT TO", taken=0),
    server("rcpt-354", HOST, turns={"RCPT": (b"354 go\r\n",)}, says="no answer to RCPT", taken=0),
    server("rcpt-hang", HOST, turns={"RCPT": (HANG,)}, path={"rcpt_to_timeout": "1s"}, says="1 s"),
    server(
        "replies-too-many", CUT, turns={"RCPT": (b"250 ok\r\n250 ok\r\n354 go\r\n250 hm\r\n",)},
        says="protocol error",
    ),
    server("size-1", NEVER, offers=("SIZE 1",), taken=0),
    server("size-huge", DELIVERED, offers=("SIZE 999999999999999999999999999",)),
)  # fmt: skip

MESSAGES = (
    server("data-450", LATER, turns={"DATA": (b"450 later\r\n",)}, says="450 later", taken=0),
    server("data-554", NEVER, turns={"DATA": (b"554 never\r\n",)}, says="554 never", taken=0),
    server("data-421", HOST, turns={"DATA": (b"421 closing\r\n", CLOSE)}, says="421", taken=0),
    server("data-250", CUT, turns={"DATA": (b"250 ok\r\n",)}, says="no answer to DATA", taken=0),
    server("data-close", CUT, turns={"DATA": (CLOSE,)}, says="DATA", taken=0),
    server("data-hang", CUT, turns={"DATA": (HANG,)}, path={"data_timeout": "1s"}, taken=0),
    server(
        "data-354-to-nobody", RCPT_NEVER,
        turns={"RCPT": (b"550 no\r\n",), "BODY": (b"554 no\r\n",)},
    ),
    server(
        "data-354-to-nobody-taken", RCPT_NEVER,
        turns={"RCPT": (b"550 no\r\n",), "BODY": (b"250 taken\r\n",)},
    ),
    server("250-before-the-dot", CUT, turns={"DATA": (b"354 go\r\n250 taken\r\n",)}, taken=0),
    server(
        "250-within-the-message", CUT, turns={"in-body": (b"250 taken\r\n", DEAF)}, size=LARGE,
        says="before the end of the message", taken=0,
    ),
    server(
        "552-within-the-message", NEVER, turns={"in-body": (b"552 5.3.4 large\r\n", DEAF)},
        size=LARGE, says="large", taken=0,
    ),
    server(
        "451-within-the-message", LATER, turns={"in-body": (b"451 4.3.1 full\r\n", DEAF)},
        size=LARGE, says="full", taken=0,
    ),
    server("421-within-the-message", HOST, turns={"in-body": (b"421 bye\r\n", DEAF)}, size=LARGE),
    server("reset-within-the-message", CUT, turns={"in-body": (RESET,)}, size=LARGE, taken=0),
    server("close-within-the-message", CUT, turns={"in-body": (CLOSE,)}, size=LARGE, taken=0),
    server(
        "deaf-within-the-message", CUT, turns={"in-body": (DEAF,)}, size=LARGEST, taken=0,
        path={"data_block_timeout": "3s"},
    ),
    server("354-then-reset", DUPLICATE, turns={"in-body": (RESET,)}),
    server("dot-250-reset", DELIVERED, turns={"BODY": (b"250 taken\r\n", Pause(4), RESET)}),
    server("dot-250-close", DELIVERED, turns={"BODY": (b"250 taken\r\n", CLOSE)}),
    server("dot-250-garbage", DELIVERED, turns={"BODY": (b"250 taken\r\n\x00\xff what\r\n",)}),
    server("dot-450", LATER, turns={"BODY": (b"450 later\r\n",)}, says="450 later"),
    server("dot-550", NEVER, turns={"BODY": (b"550 5.7.1 spam\r\n",)}, says="spam"),
    server("dot-552", NEVER, turns={"BODY": (b"552 full\r\n",)}, says="552 full"),
    server("dot-421", HOST, turns={"BODY": (b"421 closing\r\n", CLOSE)}, says="421 closing"),
    server("dot-354", DUPLICATE, turns={"BODY": (b"354 more\r\n",)}),
    server("dot-garbage", DUPLICATE, turns={"BODY": (b"taken, thanks\r\n",)}),
    server("dot-mixed", DUPLICATE, turns={"BODY": (b"250-taken\r\n550 or not\r\n",)}),
    server("dot-close", DUPLICATE, turns={"BODY": (CLOSE,)}, says="more than once"),
    server("dot-reset", DUPLICATE, turns={"BODY": (RESET,)}, says="more than once"),
    server(
        "dot-silence", DUPLICATE, turns={"BODY": (HANG,)}, path={"data_dot_timeout": "1s"},
        says="more than once",
    ),
    server(
        "dot-half", DUPLICATE, turns={"BODY": (b"250 2.0.0 tak", CLOSE)}, says="more than once"
    ),
    server(
        "dot-slow", DUPLICATE, turns={"BODY": (Drip(b"250 2.0.0 taken\r\n", 1),)},
        path={"data_dot_timeout": "2s"},
    ),
    server("dot-octets", DELIVERED, turns={"BODY": (Drip(b"250 2.0.0 taken\r\n", 0.01),)}),
    server(
        "bdat-503", LATER, offers=CHUNKING, turns={"BDAT": (b"503 what\r\n",)}, says="503 what"
    ),
    server("bdat-500", NEVER, offers=CHUNKING, turns={"BDAT": (b"500 what\r\n",)}, says="500 what"),
    server("bdat-452", LATER, offers=CHUNKING, turns={"BDAT": (b"452 full\r\n",)}, says="452 full"),
    server("bdat-354", DUPLICATE, offers=CHUNKING, turns={"BDAT": (b"354 go\r\n",)}),
    server("bdat-421", HOST, offers=CHUNKING, turns={"BDAT": (b"421 bye\r\n", CLOSE)}, says="421"),
    server(
        "bdat-refused-within", LATER, offers=CHUNKING, size=LARGE, says="452 full",
        turns={"in-chunk": (b"452 full\r\n", DEAF)}, taken=0,
    ),
    server(
        "bdat-unknown-within", NEVER, offers=CHUNKING, size=LARGE, says="500 what",
        turns={"in-chunk": (b"500 what\r\n", DEAF)}, taken=0,
    ),
    server(
        "bdat-250-within", CUT, offers=CHUNKING, size=LARGE, taken=0,
        turns={"in-chunk": (b"250 taken\r\n", DEAF)},
    ),
    server("bdat-reset-within", CUT, offers=CHUNKING, size=LARGE, turns={"in-chunk": (RESET,)}),
    server("bdat-close", DUPLICATE, offers=CHUNKING, turns={"BDAT": (CLOSE,)}),
    server(
        "bdat-silence", DUPLICATE, offers=CHUNKING, turns={"BDAT": (HANG,)},
        path={"data_dot_timeout": "1s"},
    ),
    server("bdat-good", DELIVERED, offers=CHUNKING),
)  # fmt: skip

OK2 = b"250 2.1.5 <a> taken\r\n"
SEQUENCES = (
    server(
        "lmtp-mixed", DELIVERED, RCPT_NEVER.replace("recipient", "message"), LATER, recipients=3,
        queue=LMTP, turns={"BODY": (OK2 + b"550 full\r\n450 later\r\n",)},
    ),
    server(
        "lmtp-too-few-then-close", DELIVERED, DUPLICATE, recipients=2, queue=LMTP,
        turns={"BODY": (OK2, CLOSE)},
    ),
    server(
        "lmtp-too-few", DELIVERED, DUPLICATE, recipients=2, queue=LMTP,
        turns={"BODY": (OK2,)}, path={"data_dot_timeout": "6s"},
    ),
    server(
        "lmtp-too-many", DELIVERED, DELIVERED, recipients=2, queue=LMTP, turns={"BODY": (OK2 * 5,)}
    ),
    server(
        "lmtp-421", DELIVERED, HOST, recipients=2, queue=LMTP,
        turns={"BODY": (OK2 + b"421 closing\r\n", CLOSE)},
    ),
    server("lmtp-no-lhlo", HOST, queue=LMTP, turns={"LHLO": (b"500 what\r\n",)}),
    server(
        "two-messages", DELIVERED, DELIVERED, messages=2, taken=2,
    ),
    server(
        "close-between", DELIVERED, DELIVERED, messages=2, taken=2,
        turns={"BODY": [(b"250 ok\r\n", CLOSE), (b"250 ok\r\n",)]},
    ),
    server(
        "421-between", DELIVERED, DELIVERED, messages=2, taken=2,
        turns={"BODY": [(b"250 ok\r\n421 enough\r\n", CLOSE), (b"250 ok\r\n",)]},
    ),
    server(
        "250-between", DELIVERED, DELIVERED, messages=2, taken=2,
        turns={"BODY": [(b"250 ok\r\n250 ok\r\n",), (b"250 ok\r\n",)]},
    ),
    server(
        "421-to-second-mail", DELIVERED, DELIVERED, messages=2, taken=2,
        turns={"MAIL": [(b"250 ok\r\n",), (b"421 enough\r\n", CLOSE), (b"250 ok\r\n",)]},
    ),
    server(
        "reset-at-second-mail", DELIVERED, DELIVERED, messages=2, taken=2,
        turns={"MAIL": [(b"250 ok\r\n",), (RESET,), (b"250 ok\r\n",)]},
    ),
    server(
        "rset-500", DELIVERED, DELIVERED, messages=2, taken=2, path={"enable_rset": "yes"},
        turns={"RSET": (b"500 what\r\n",)},
    ),
    server(
        "rset-421", DELIVERED, DELIVERED, messages=2, taken=2, path={"enable_rset": "yes"},
        turns={"RSET": (b"421 closing\r\n", CLOSE)},
    ),
    server(
        "rset-silence", DELIVERED, DELIVERED, messages=2, taken=2, turns={"RSET": (HANG,)},
        path={"enable_rset": "yes", "rset_timeout": "1s"},
    ),
    server(
        "rset-needed", NEVER, DELIVERED, messages=2, taken=1, offers=NOTHING,
        turns={"MAIL": [(b"550 no\r\n",), (b"250 ok\r\n",)]},
    ),
    server("quit-ignored", DELIVERED, turns={"QUIT": (HANG,)}, path=BRIEF),
    server("quit-garbage", DELIVERED, turns={"QUIT": (b"what\r\n",)}, path=BRIEF),
    server("quit-550", DELIVERED, turns={"QUIT": (b"550 stay\r\n",)}, path=BRIEF),
)  # fmt: skip

SERVERS = (*GREETINGS, *HELLOS, *SECURITY, *ENVELOPES, *MESSAGES, *SEQUENCES)
