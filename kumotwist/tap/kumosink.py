"""C{twistd kumosink}: an SMTP sink for trials."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.application.service import IService
from twisted.python import usage

from kumotwist.settings import declared
from kumotwist.smtp.settings import SinkSettings
from kumotwist.tap.starting import explain_failed_start

__all__ = ["Options", "makeService"]

#: What the command line says of each key of C{[sink:NAME]}, in the file's words.
_KEYS = {key: facts for key, (_, facts) in declared(SinkSettings).items() if key != "listen"}


class Options(usage.Options):
    """The command line: where to listen, and every key of C{[sink:NAME]} as an option."""

    synopsis = "--listen ADDR:PORT [options]"
    longdesc = (
        "Accepts mail for every domain from whoever reaches it, keeps nothing, and logs from "
        "which address each message came. It can be told to answer slowly, to refuse or to fail."
    )
    optParameters = [
        ["listen", "l", "127.0.0.1:2526", "ADDR:PORT or a Twisted server endpoint string."],
        ["state-dir", None, "var", "Where the self-signed certificate is kept."],
        *([key.replace("_", "-"), None, None, facts.doc] for key, facts in _KEYS.items()),
    ]

    settings: SinkSettings

    def postOptions(self) -> None:
        """Turn the options into settings."""
        values: dict[str, Any] = {}
        for key, (attribute, facts) in declared(SinkSettings).items():
            text = self[key.replace("_", "-")]
            if text is None:
                continue
            try:
                values[attribute.name] = facts.kind.parse(text)
            except ValueError as error:
                raise usage.UsageError(f"--{key.replace('_', '-')}: {error}") from None
        self.settings = attrs.evolve(SinkSettings(), name="kumosink", **values)
        problems = [
            f"--{problem.keys[0].replace('_', '-')}: {problem.text}"
            for problem in self.settings.problems()
        ]
        if problems:
            raise usage.UsageError("; ".join(problems))


def makeService(options: Options) -> IService:
    """Build the sink."""
    from twisted.internet import reactor

    from kumotwist.errors import KumotwistError
    from kumotwist.proxy.descriptors import raise_descriptor_limit
    from kumotwist.service import standalone_sink

    raise_descriptor_limit()
    explain_failed_start("kumosink")
    try:
        service: Any = standalone_sink(reactor, options.settings, options["state-dir"])
    except KumotwistError as error:
        raise SystemExit(f"kumosink: {error}") from None
    return service  # type: ignore[no-any-return]
