"""Numbers as Prometheus reads them (its text format, version 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define
from twisted.web.resource import Resource
from twisted.web.server import Request

__all__ = ["Family", "MetricsPage", "Sample", "exposition"]

#: The labels of one number, and the number.
Sample = tuple[dict[str, str], int]


@define(frozen=True)
class Family:
    """Numbers with one name.

    @ivar kind: C{"counter"} or C{"gauge"}.
    @ivar text: what they count, in one line.
    """

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]


def exposition(families: Iterable[Family]) -> str:
    """Write families in the text format."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {value}" for labels, value in family.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsPage(Resource):
    """C{/metrics}.

    @param render: writes the numbers of this moment.
    """

    isLeaf = True

    def __init__(self, render: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._render = render

    def render_GET(self, request: Request) -> bytes:
        """Write them."""
        request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        return self._render().encode()
