"""SIGHUP: another configuration while mail flows."""

from __future__ import annotations

import signal
import smtplib
import threading
from collections import Counter
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import free_port, until

ONE = """
[source:one]
source_address = 127.0.0.2

[pool:out]
one = 1

[queue:default]
egress_pool = out
route = <first>
retry_interval = 1s

[path:default]
connection_limit = 3
"""

TWO = """
max_recipients_per_message = 5

[source:one]
source_address = 127.0.0.2
ehlo_domain = one.example.com

[source:two]
source_address = 127.0.0.3

[pool:out]
one = 1
two = 2

[queue:default]
egress_pool = out
route = <first>
retry_interval = 2s

[queue:other.example]
egress_pool = out
route = <second>

[path:default]
connection_limit = 2

[path:other.example]
max_deliveries_per_connection = 3
"""

FAULTY = """
max_recipient_per_message = 5

[source:one]
source_address = 127.0.0.2

[pool:out]
one = 1
three = 1

[queue:default]
egress_pool = out
"""


def keep_sending(
    port: int, label: str, accepted: list[str], stop: threading.Event, problems: list[str]
) -> None:
    """Hand messages in over one connection, until told to stop."""
    number = 0
    try:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="c.example.org", timeout=60) as client:
            while not stop.wait(0.005):
                domain = ("example.com", "other.example")[number % 2]
                address = f"{label}-{number}@{domain}"
                client.sendmail("sender@example.org", [address], message(address))
                accepted.append(address)
                number += 1
    except (OSError, smtplib.SMTPException) as problem:
        problems.append(repr(problem))


class ReloadTests(TestCase):
    """The program, its file, and SIGHUP."""

    async def reload(self, kumo: Kumo, config: str, said: str) -> None:
        """Change what follows the file's first lines, and wait until that was noticed."""
        text = kumo.config_path.read_text(encoding="utf-8")
        beginning = text.partition("# --\n")[0]
        kumo.config_path.write_text(beginning + "# --\n" + config, encoding="utf-8")
        before = kumo.output().count(said)
        kumo.signal(signal.SIGHUP)
        await until(
            lambda: kumo.output().count(said) > before,
            lambda: str(kumo.complain(f"not said: {said}")),
        )

    def recipients(self, *sinks: Sink) -> Counter[str]:
        """Who got how many messages."""
        return Counter(name for sink in sinks for mail in sink.mails for name in mail.recipients)

    async def test_while_mail_flows(self) -> None:
        """Twenty times another configuration, some of them faulty: no message is lost, sent twice
        or refused, and no connection ends but by QUIT."""
        first, second = start_sink(self), start_sink(self)
        configs = [
            config.replace("<first>", first.route).replace("<second>", second.route)
            for config in (ONE, TWO)
        ]
        kumo = await start_kumo(self, "# --\n" + configs[0])
        accepted: list[str] = []
        problems: list[str] = []
        stop = threading.Event()
        senders = [
            deferToThread(keep_sending, kumo.port, f"s{number}", accepted, stop, problems)
            for number in range(3)
        ]
        for turn in range(20):
            enough = len(accepted) + 10
            await until(
                lambda enough=enough: problems or len(accepted) >= enough,  # type: ignore[misc]
                "ten more messages",
            )
            if turn % 5 == 4:
                await self.reload(kumo, FAULTY, "the configuration stays as it was")
            else:
                config = configs[(turn + 1) % 2]
                await self.reload(kumo, config, "the configuration was read again and holds now")
        stop.set()
        for sender in senders:
            await sender
        self.assertEqual(problems, [])
        await until(
            lambda: set(accepted) <= set(self.recipients(first, second)),
            lambda: f"of {len(accepted)} there are {len(self.recipients(first, second))}",
            60,
        )
        copies = {name: n for name, n in self.recipients(first, second).items() if n > 1}
        self.assertEqual(copies, {})
        ended = [one for sink in (first, second) for one in sink.sessions if one.closed]
        self.assertEqual([one.lines for one in ended if one.lines[-1] != "QUIT"], [])
        self.assertEqual({mail.peer for mail in first.mails}, {"127.0.0.2", "127.0.0.3"})
        self.assertGreater(len(second.mails), 0)
        await kumo.wait_for_records(len(accepted), type="Delivery")
        self.assertEqual(kumo.records(type="TransientFailure"), [])
        self.assertNotIn("Traceback", kumo.output())

    async def test_faulty_file(self) -> None:
        """A file with mistakes is refused whole, each mistake is logged, and all goes on."""
        sink = start_sink(self)
        kumo = await start_kumo(self, "# --\n" + ONE.replace("<first>", sink.route))
        await self.reload(kumo, FAULTY, "the configuration stays as it was: 2 errors")
        said = kumo.output()
        self.assertRegex(said, r"kumo\.ini:\d+: \[listener:in\] max_recipient_per_message: unknown")
        self.assertRegex(said, r"kumo\.ini:\d+: \[pool:out\] three: ")
        await send_mail(kumo.port, [f"u{number}@example.com" for number in range(7)])
        await until(lambda: len(self.recipients(sink)) == 7, "seven recipients")

    async def test_applied_and_not(self) -> None:
        """Listeners go by other terms at once; what has to wait for a restart is named."""
        sink = start_sink(self)
        kumo = await start_kumo(self, "# --\n" + ONE.replace("<first>", sink.route))
        with smtplib.SMTP("127.0.0.1", kumo.port, local_hostname="c", timeout=60) as before:
            text = kumo.config_path.read_text(encoding="utf-8")
            kumo.config_path.write_text(
                text.replace("listen = 127.0.0.1:", f"listen = 127.0.0.1:{free_port()}\n# "),
                encoding="utf-8",
            )
            config = "relay_hosts = 192.0.2.0/24\n" + ONE.replace("<first>", sink.route)
            config += "\n[spool]\ndurable = no\n"
            await self.reload(kumo, config, "the configuration was read again and holds now")
            await kumo.wait_for_output(
                r"not before a restart: \[spool\] durable, \[listener:in\] listen$"
            )
            sent = await deferToThread(before.sendmail, "a@example.org", ["u@example.com"], b"x")
            self.assertEqual(sent, {}, "who was there before keeps the terms")
            await sink.wait_for_mails()
            refused = self.assertFailure(
                send_mail(kumo.port, ["u@example.com"]), smtplib.SMTPRecipientsRefused
            )
            problem: Any = await refused
            self.assertEqual(problem.recipients["u@example.com"][0], 550)
