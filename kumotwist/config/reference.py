"""The reference page, made from the declarations: C{python -m kumotwist.config.reference}."""

from __future__ import annotations

import sys
from typing import Any

import attrs

from kumotwist.config.sections import KINDS, PLANNED_KINDS, SectionKind
from kumotwist.settings import Setting

__all__ = ["reference"]

_INTRODUCTION = """\
# Configuration reference

Every section and every key that this version knows. `docs/configuration.md` explains the file.

This page is made from the program: `python -m kumotwist.config.reference > docs/reference.md`.
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION, *(_section(kind) for kind in KINDS.values())]
    names = ", ".join(f"`[{name}]`" for name in sorted(PLANNED_KINDS))
    parts.append(f"## Sections that are not supported yet\n\n{names}\n")
    return "\n".join(parts)


def _section(kind: SectionKind) -> str:
    lines = [f"## [{kind.form}]", "", kind.doc, ""]
    if kind.is_pool:
        lines += ["    [pool:NAME]", "    SOURCE = WEIGHT", ""]
    elif kind.keys:
        lines += ["| key | type | default | |", "|---|---|---|---|"]
        lines += [_row(key, *facts) for key, facts in kind.keys.items()]
        lines.append("")
    if kind.planned:
        keys = ", ".join(f"`{key}`" for key in sorted(kind.planned))
        lines += [f"Not supported yet: {keys}.", ""]
    return "\n".join(lines)


def _row(key: str, attribute: attrs.Attribute[Any], facts: Setting) -> str:
    cells = (f"`{key}`", facts.kind.name, _default(attribute, facts), facts.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(attribute: attrs.Attribute[Any], facts: Setting) -> str:
    if facts.required:
        return "**required**"
    if facts.default_doc is not None:
        return facts.default_doc
    if attribute.default is None or attribute.default == ():
        return ""
    if isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
        return ""
    return f"`{facts.kind.render(attribute.default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
