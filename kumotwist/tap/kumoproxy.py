"""C{twistd kumoproxy}: run KumoProxy alone, on the machine that owns the addresses."""

from __future__ import annotations

import sys
from typing import Any

import attrs
from twisted.application.service import IService
from twisted.python import usage

from kumotwist.config import Configuration
from kumotwist.http.settings import HTTPSettings
from kumotwist.proxy.settings import ProxySettings
from kumotwist.settings import declared
from kumotwist.settings.types import parse_server_endpoint
from kumotwist.tap.kumo import read_configuration
from kumotwist.tap.starting import explain_failed_start

__all__ = ["Options", "makeService"]

#: The keys of C{[proxy:NAME]} that the command line has as well, with what is known of them.
_KEYS = {key: declared(ProxySettings)[key][1] for key in ("timeout", "idle_timeout")}


class Options(usage.Options):
    """The command line: an address, or a configuration with C{[proxy:NAME]} sections."""

    synopsis = "(--listen ADDR:PORT [--http ADDR:PORT] | -c FILE) [--check]"
    longdesc = (
        "A SOCKS5 proxy whose clients may choose the source address with BIND. With --listen it "
        "lets everybody who reaches it send from any address of this machine to ports 25, 465, "
        "587 and 2525; rules, logins, TLS and limits take a configuration file."
    )
    optParameters = [
        ["config", "c", None, "Run the [proxy:NAME] sections of this file."],
        ["http", None, None, "With --listen: serve /metrics and /proxy/status here to loopback."],
        *([key.replace("_", "-"), None, None, facts.doc] for key, facts in _KEYS.items()),
    ]

    optFlags = [["check", None, "Say what is wrong with all that, and exit without listening."]]

    configuration: Configuration | None = None
    settings: ProxySettings
    http: HTTPSettings | None = None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listen: list[str] = []

    def opt_listen(self, address: str) -> None:
        """Listen here: ADDR:PORT or a Twisted server endpoint string; repeatable."""
        try:
            self.listen.append(parse_server_endpoint(address))
        except ValueError as error:
            raise usage.UsageError(f"--listen: {error}") from None

    opt_l = opt_listen

    def postOptions(self) -> None:
        """Exactly one of the two ways."""
        if bool(self.listen) == bool(self["config"]):
            raise usage.UsageError("give either --listen ADDR:PORT or -c FILE")
        values: dict[str, Any] = {}
        for key, facts in _KEYS.items():
            option = key.replace("_", "-")
            if self[option] is None:
                continue
            if self["config"]:
                raise usage.UsageError(f"--{option} goes with --listen; a file has {key}")
            try:
                values[key] = facts.kind.parse(self[option])
            except ValueError as error:
                raise usage.UsageError(f"--{option}: {error}") from None
        self.settings = ProxySettings(listen="", **values)
        if self["http"] is not None:
            self.http = self._read_http(self["http"])
        if self["config"]:
            self.configuration = read_configuration(self["config"])
            if not self.configuration.proxies:
                raise usage.UsageError(f"{self['config']} has no [proxy:NAME] section")
            self.http = self.configuration.http
        if self["check"]:
            makeService(self)
            sys.stdout.write(f"{self['config'] or 'kumoproxy'}: ok\n")
            raise SystemExit(0)

    def _read_http(self, address: str) -> HTTPSettings:
        if self["config"]:
            raise usage.UsageError("--http goes with --listen; a file has [http]")
        try:
            return HTTPSettings(listen=parse_server_endpoint(address))
        except ValueError as error:
            raise usage.UsageError(f"--http: {error}") from None


def makeService(options: Options) -> IService:
    """Build the proxies."""
    from twisted.internet import reactor

    from kumotwist.errors import KumotwistError
    from kumotwist.proxy.descriptors import raise_descriptor_limit
    from kumotwist.service import obey_signals, standalone_proxies

    raise_descriptor_limit()
    explain_failed_start("kumoproxy")
    if options.configuration is not None:
        proxies = dict(options.configuration.proxies)
        rules = dict(options.configuration.proxy_rules)
    else:
        rules = {}
        proxies = {
            endpoint: attrs.evolve(options.settings, listen=endpoint) for endpoint in options.listen
        }
    try:
        service: Any = standalone_proxies(
            reactor, proxies, rules, options.http, options.configuration
        )
    except KumotwistError as error:
        raise SystemExit(f"kumoproxy: {error}") from None
    if not options["check"]:
        obey_signals(reactor, hurry=service.hurry, reload=service.reload)
    return service  # type: ignore[no-any-return]
