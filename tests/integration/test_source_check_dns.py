"""C{kumo source check} with a real name server: names, and blocklists of which one is good."""

from __future__ import annotations

import json
from typing import Any

from tests.integration import parts
from tests.integration.sink import start_sink
from tests.integration.test_source_check import SEEN, SOURCE, CheckTestCase

NAMES = (
    'local-zone: "2.0.192.in-addr.arpa." static',
    f'local-data-ptr: "{SEEN} mta1.examplecorp.com"',
    'local-zone: "examplecorp.com." static',
    f'local-data: "mta1.examplecorp.com. A {SEEN}"',
)
LISTS = (
    'local-zone: "good.example." static',
    'local-data: "2.0.0.127.good.example. A 127.0.0.2"',
    # A list that was given up, whose domain now answers every question.
    'local-zone: "world.example." redirect',
    'local-data: "world.example. A 127.0.0.2"',
    # And one whose servers are gone: there is no answer at all.
    'local-zone: "silent.example." deny',
)
ZONES = ("good.example", "world.example", "silent.example")


class UnboundTests(CheckTestCase):
    """A direct source that an echo peer sees at a public address, and Unbound."""

    timeout = 120.0

    async def look(self, *zones: str) -> tuple[int, Any]:
        """Check it; give the status and what was found."""
        _, port = await parts.start_unbound(self, [*NAMES, *LISTS, *zones])
        echo = start_sink(self)
        echo.always("EHLO", f"250 echo.example greets [{SEEN}]")
        config = "[dns]\nnameservers = 127.0.0.1:<dns>\ntimeout = 3s\n" + SOURCE.format(way="")
        lists = [word for zone in ZONES for word in ("--blocklist", zone)]
        status, output = await self.check(
            self.write(config, dns=port),
            "ip-1", "--echo", f"127.0.0.1:{echo.port}", "--json", *lists,
        )  # fmt: skip
        return status, json.loads(output)

    def found(self, result: Any) -> dict[tuple[str, str], tuple[str, str]]:
        """Status and text of each check, by its name and subject."""
        [way] = result["ways"]
        return {
            (one["check"], one.get("subject", "")): (one["status"], one["text"])
            for one in way["checks"]
        }

    async def test_all_right(self) -> None:
        """PTR, the way back and EHLO agree; only the list that works is believed."""
        status, result = await self.look()
        found = self.found(result)
        self.assertEqual(status, 0, found)
        for check in ("ptr", "fcrdns", "ehlo"):
            self.assertEqual(found[check, ""][0], "ok", found)
        self.assertEqual(found["blocklist", "good.example"][0], "ok")
        for zone, words in (("world.example", "it lists the world"), ("silent.example", "asked")):
            verdict, text = found["blocklist", zone]
            self.assertEqual((verdict, words in text), ("warning", True), text)
        usable = [one["zone"] for one in result["blocklists"] if one["usable"]]
        self.assertEqual(usable, ["good.example"])

    async def test_all_wrong(self) -> None:
        """A PTR whose name leads elsewhere, and the address on the list that works."""
        status, result = await self.look(
            'local-data: "44.2.0.192.good.example. A 127.0.0.4"',
            'local-zone: "examplecorp.com." always_nxdomain',
        )
        found = self.found(result)
        self.assertEqual(status, 1, found)
        self.assertEqual(found["ptr", ""][0], "ok", found)
        self.assertEqual(found["fcrdns", ""][0], "failure", found)
        self.assertEqual(found["blocklist", "good.example"][0], "failure")
        self.assertIn("127.0.0.4", found["blocklist", "good.example"][1])
        self.assertEqual(found["blocklist", "world.example"][0], "warning")
