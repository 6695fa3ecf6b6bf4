"""Proxies that run alone: what C{twistd kumoproxy} starts, stops and reads again."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from kumotwist.config import Configuration
from kumotwist.service.live import read_again, restart_needed

__all__ = ["StandaloneProxies"]

#: The sections of a file that concern it.
_OURS = ("[proxy:", "[http]")


class StandaloneProxies(MultiService):
    """Proxies, and beside them pages that tell of them until they have drained.

    @param proxies: the proxies together.
    @param configuration: what they were built from, if it came from a file.
    """

    _log = Logger()

    def __init__(self, proxies: MultiService, configuration: Configuration | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proxies: Any = proxies
        self._configuration = configuration
        proxies.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        """Drain the proxies, then stop what tells of them."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(self._proxies.disownServiceParent)
        await maybeDeferred(super().stopService)

    def hurry(self) -> None:
        """Told to stop again: running sessions are not waited for any longer."""
        self._log.warn("told to stop again: sessions are cut off")
        for proxy in self._proxies:
            proxy.cut()

    def reload(self) -> None:
        """Read the file again and go by its rules, whole or not at all; no session ends for it."""
        if self._configuration is None:
            self._log.info("there is no configuration file that could be read again")
            return
        new = read_again(self._configuration, ("proxy", "http"))
        if new is None:
            return
        for proxy in self._proxies:
            proxy.go_by(new.proxy_rules.items())
        self._log.info("the rules were read again and hold now")
        waiting = [key for key in restart_needed(self._configuration, new) if key.startswith(_OURS)]
        if waiting:
            self._log.warn("not before a restart: {keys}", keys=", ".join(waiting))
