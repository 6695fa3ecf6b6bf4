"""C{kumo source check} through real proxies, with a name server of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.configurations import LOCAL_PROXY
from tests.integration.dnsstub import start_name_server
from tests.integration.processes import Child, run
from tests.integration.program import fill_in, kumo_command, start_kumo, start_plugin
from tests.integration.sink import Act, start_sink
from tests.integration.waiting import free_port

SEEN = "192.0.2.44"
ZONE = {
    ("44.2.0.192.in-addr.arpa", "PTR"): ["mta1.examplecorp.com."],
    ("mta1.examplecorp.com", "A"): [SEEN],
    ("2.0.0.127.bl.example", "A"): ["127.0.0.2"],
    ("2.0.0.127.clean.example", "A"): ["127.0.0.2"],
    ("44.2.0.192.bl.example", "A"): ["127.0.0.4"],
    ("2.0.0.127.world.example", "A"): ["127.0.0.2"],
    ("1.0.0.127.world.example", "A"): ["127.0.0.2"],
    ("44.2.0.192.world.example", "A"): ["127.0.0.2"],
    ("2.0.0.127.refusing.example", "A"): ["127.255.255.254"],
    ("1.0.0.127.refusing.example", "A"): ["127.255.255.254"],
    ("44.2.0.192.refusing.example", "A"): ["127.255.255.254"],
}

SOURCE = """
[source:ip-1]
{way}
ehlo_domain = mta1.examplecorp.com

[check]
timeout = 3s
"""


class CheckTestCase(TestCase):
    """Runs the command; no node runs unless the test starts one."""

    def write(self, config: str, **names: object) -> str:
        """A configuration file in a directory of its own."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        path = directory / "kumo.ini"
        path.write_text(fill_in(config, names), encoding="utf-8")
        return str(path)

    async def check(self, path: str, *arguments: str) -> tuple[int, str]:
        """Run C{kumo source check}; give its status and what it printed."""
        command = kumo_command("source", "check", "-c", path, *arguments)
        done = await deferToThread(run, command)
        self.assertNotIn("Traceback", done.stdout)
        return done.returncode, done.stdout

    async def start_echo(self) -> str:
        """Start C{twistd kumosink}, which tells clients where they come from."""
        port = free_port()
        await start_plugin(self, "kumosink", ["--listen", f"127.0.0.1:{port}"], port)
        return f"127.0.0.1:{port}"

    async def check_one(self, way: str) -> tuple[int, dict[str, str], dict[str, str]]:
        """Check a source named C{ip-1} against a sink.

        @return: the status, and the answers to the questions: in one word, and their texts.
        """
        peer = await self.start_echo()
        path = self.write(SOURCE.format(way=way))
        status, output = await self.check(path, "ip-1", "--mx", peer, "--echo", peer, "--json")
        [found] = json.loads(output)["ways"]
        words = {one["check"]: one["status"] for one in found["checks"]}
        return status, words, {one["check"]: one["text"] for one in found["checks"]}


class ProxyTests(CheckTestCase):
    """Each kind of proxy, and what is true of it."""

    async def test_kumoproxy(self) -> None:
        """Our own proxy: the address is confirmed by the proxy and by the echo peer. Once the
        node with the proxy is gone that is told, with the status 1."""
        peer = await self.start_echo()
        config = (
            LOCAL_PROXY
            + "[source:ip-1]\nsocks5_proxy_server = 127.0.0.1:<proxy>\n"
            + "socks5_proxy_source_address = 127.0.0.2\n[pool:out]\nip-1 = 1\n"
            + "[queue:default]\negress_pool = out\n[check]\nmx = <peer>\necho = <peer>\n"
        )
        kumo = await start_kumo(self, config, names={"proxy": free_port(), "peer": peer})
        status, output = await self.check(str(kumo.config_path))
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"ok +proxy +127\.0\.0\.1:\d+ is reachable, \d+ ms")
        self.assertRegex(output, r"ok +bind +127\.0\.0\.2 is confirmed by the proxy")
        self.assertRegex(output, r"ok +mx .* greets: 220 ")
        self.assertRegex(output, r"ok +echo .* sees 127\.0\.0\.2\n")
        self.assertIn("1 way out: 1 all right", output)
        await kumo.stop()
        status, output = await self.check(str(kumo.config_path))
        self.assertEqual(status, 1, output)
        self.assertRegex(output, r"FAILURE +proxy +cannot connect to the proxy")

    async def test_dante(self) -> None:
        """Dante takes BIND for something else, says success, and would send from elsewhere."""
        _, port = await parts.start_dante(self)
        way = f"socks5_proxy_server = 127.0.0.1:{port}\nsocks5_proxy_source_address = 127.0.0.55"
        status, words, texts = await self.check_one(way)
        self.assertEqual(status, 1)
        self.assertEqual((words["proxy"], words["bind"], words["mx"]), ("ok", "failure", "skipped"))
        self.assertIn("instead of 127.0.0.55", texts["bind"])

    async def test_dante_without_address(self) -> None:
        """Without an address to ask for, Dante is as good as any; that it asks for no login, though
        one is configured, is told."""
        _, port = await parts.start_dante(self)
        status, words, texts = await self.check_one(
            f"socks5_proxy_server = 127.0.0.1:{port}\n"
            "socks5_proxy_username = alice\nsocks5_proxy_password = wonderland"
        )
        self.assertEqual(status, 0, texts)
        self.assertEqual((words["mx"], words["echo"]), ("ok", "ok"))
        self.assertEqual(words["login"], "warning", texts)

    async def test_microsocks(self) -> None:
        """microsocks does not know BIND."""
        _, port = await parts.start_microsocks(self)
        way = f"socks5_proxy_server = 127.0.0.1:{port}\nsocks5_proxy_source_address = 127.0.0.55"
        status, words, texts = await self.check_one(way)
        self.assertEqual((status, words["proxy"], words["bind"]), (1, "ok", "failure"))
        self.assertIn("REP 07, command not supported", texts["bind"])
        self.assertIn("leave socks5_proxy_source_address out", texts["bind"])

    async def test_haproxy(self) -> None:
        """HAProxy tells nothing; the echo peer sees the address."""
        _, port = await parts.start_haproxy(self, parts.shipped_haproxy_cfg())
        way = f"ha_proxy_server = 127.0.0.1:{port}\nha_proxy_source_address = 127.0.0.3"
        status, words, texts = await self.check_one(way)
        self.assertEqual(status, 0, texts)
        self.assertEqual((words["bind"], words["mx"], words["echo"]), ("skipped", "ok", "ok"))
        self.assertIn("sees 127.0.0.3", texts["echo"])

    async def test_haproxy_cannot_bind(self) -> None:
        """An address that HAProxy's machine does not have shows as silence before the greeting."""
        _, port = await parts.start_haproxy(self, parts.shipped_haproxy_cfg())
        way = f"ha_proxy_server = 127.0.0.1:{port}\nha_proxy_source_address = 192.0.2.77"
        status, words, texts = await self.check_one(way)
        self.assertEqual((status, words["proxy"], words["mx"]), (1, "ok", "failure"), texts)
        self.assertRegex(texts["mx"], r"able to use (the source address|192\.0\.2\.77)")

    async def test_unplumbed(self) -> None:
        """A direct source with an address that this machine does not have."""
        status, words, texts = await self.check_one("source_address = 192.0.2.77")
        self.assertEqual((status, words["bind"], words["mx"]), (1, "failure", "skipped"))
        self.assertIn("assign requested address", texts["bind"])

    async def test_interrupted(self) -> None:
        """A check that is interrupted claims nothing of any source."""
        silent = start_sink(self)
        silent.always("GREETING", Act(hang=True))
        path = self.write("[source:ip-1]\n")
        command = kumo_command("source", "check", "-c", path, "ip-1", "--mx", silent.route)
        child = Child(self, "kumo", command)
        await silent.wait_for_sessions()
        self.assertEqual(await child.stop(), 2, child.output())
        self.assertNotIn("FAILURE", child.output())


class DNSTests(CheckTestCase):
    """What the world sees of the address, as the name server has it."""

    async def look(self, zone: dict[tuple[str, str], list[str]], *arguments: str) -> Any:
        """Check a direct source that an echo peer sees at 192.0.2.44."""
        server = start_name_server(self, zone)
        echo = start_sink(self)
        echo.always("EHLO", f"250 echo.example greets [{SEEN}]")
        config = "[dns]\nnameservers = 127.0.0.1:<dns>\n" + SOURCE.format(way="")
        path = self.write(config, dns=server.port)
        status, output = await self.check(
            path, "ip-1", "--echo", f"127.0.0.1:{echo.port}", "--json", *arguments
        )
        return status, json.loads(output)

    async def test_names(self) -> None:
        """PTR, the way back and EHLO agree; the list does not have the address."""
        status, found = await self.look(dict(ZONE), "--blocklist", "clean.example")
        self.assertEqual(status, 0, found)
        self.assertEqual((found["status"], found["ways"][0]["seen_address"]), ("ok", SEEN))
        words = {one["check"]: one["status"] for one in found["ways"][0]["checks"]}
        for check in ("echo", "ptr", "fcrdns", "ehlo", "blocklist"):
            self.assertEqual(words[check], "ok", found)

    async def test_another_name(self) -> None:
        """EHLO says another name than the PTR: a warning, which fails only if it shall."""
        zone = {
            **ZONE,
            ("44.2.0.192.in-addr.arpa", "PTR"): ["other.example."],
            ("other.example", "A"): [SEEN],
        }
        status, found = await self.look(zone)
        self.assertEqual((status, found["status"]), (0, "warning"))
        status, _ = await self.look(zone, "--strict")
        self.assertEqual(status, 1)

    async def test_blocklists(self) -> None:
        """A list that works lists the address; lists that list the world or refuse do not count."""
        zones = ("bl.example", "world.example", "refusing.example", "dead.example")
        arguments = [word for zone in zones for word in ("--blocklist", zone)]
        status, found = await self.look(dict(ZONE), *arguments)
        self.assertEqual(status, 1)
        checks = [one for one in found["ways"][0]["checks"] if one["check"] == "blocklist"]
        self.assertEqual(
            {one["subject"]: one["status"] for one in checks},
            {
                "bl.example": "failure",
                "world.example": "warning",
                "refusing.example": "warning",
                "dead.example": "warning",
            },
        )
        self.assertEqual(
            [one["zone"] for one in found["blocklists"] if one["usable"]], ["bl.example"]
        )
        self.assertEqual(checks[0]["codes"], ["127.0.0.4"])
