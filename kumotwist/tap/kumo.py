"""C{twistd kumo -c FILE}: run a node."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from kumotwist.config import ConfigErrors, Configuration, load
from kumotwist.tap.starting import explain_failed_start

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """The command line."""

    synopsis = "[options]"
    longdesc = "A mail transfer agent whose mail leaves through SOCKS5 and HAProxy forward proxies."
    optParameters = [
        ["config", "c", "etc/kumo.ini", "The configuration file."],
        ["worker", None, None, "Used by a node of several processes, which starts them so."],
    ]
    optFlags = [["check", None, "Check the configuration, say what is wrong with it, and exit."]]

    configuration: Configuration
    orders: Any = None

    def postOptions(self) -> None:
        """Read the configuration: with mistakes in it nothing starts."""
        texts = None
        if self["worker"] is not None:
            from kumotwist.service.orders import WorkerOrders

            self.orders = WorkerOrders.parse(self["worker"])
            # What the node runs; the files may say something else by now.
            texts = json.load(sys.stdin)
        self.configuration = read_configuration(self["config"], texts)
        if self["check"]:
            sys.stdout.write(f"{self['config']}: ok\n")
            raise SystemExit(0)


def read_configuration(path: str, texts: Mapping[str, str] | None = None) -> Configuration:
    """Read a configuration, or print every mistake in it and exit with status 1.

    @param texts: see L{load}.
    """
    from kumotwist.service.certificates import unusable_certificates

    try:
        return load(path, unusable_certificates, texts)
    except ConfigErrors as errors:
        sys.stderr.write(f"{errors}\n")
        raise SystemExit(1) from None


def makeService(options: Options) -> IService:
    """Build the node."""
    from twisted.internet import reactor

    from kumotwist.errors import KumotwistError
    from kumotwist.proxy.descriptors import raise_descriptor_limit
    from kumotwist.service import Node, Supervisor, Worker, obey_signals

    raise_descriptor_limit()
    explain_failed_start("kumo")
    configuration = options.configuration
    try:
        if options.orders is not None:
            worker: Any = Worker(reactor, configuration, options.orders).node
            return worker  # type: ignore[no-any-return]
        kind: Any = Node if configuration.node.workers == 1 else Supervisor
        node = kind(reactor, configuration)
        # Here the reason still reaches the terminal whole, also of a process that becomes a daemon.
        node.probe_spool()
    except KumotwistError as error:
        raise SystemExit(f"kumo: {error}") from None
    obey_signals(reactor, hurry=node.hurry, reload=node.reload)
    return node  # type: ignore[no-any-return]
