"""From a section's text to its settings, noting every problem on the way."""

from __future__ import annotations

from typing import Any

import attrs

from kumotwist.config.errors import ConfigError, did_you_mean, nearest
from kumotwist.config.reader import Entry, RawSection
from kumotwist.config.sections import KINDS, PLANNED_KINDS, SectionKind, kind_of
from kumotwist.egress.settings import WEIGHT, PoolEntry
from kumotwist.settings import Checked

__all__ = ["Section", "build"]


@attrs.define
class Section:
    """A section whose header is understood.

    @ivar raw: its text.
    @ivar kind: what it is.
    @ivar name: what its header names: text or a pattern; L{None} if that is not well-formed.
    @ivar values: the attributes that it sets.
    @ivar lines: where its keys stand.
    @ivar failed: the keys whose values cannot be had.
    @ivar settings: the whole, with defaults filled in; L{None} if it cannot be built.
    """

    raw: RawSection
    kind: SectionKind
    name: Any
    values: dict[str, Any] = attrs.field(factory=dict)
    lines: dict[str, int] = attrs.field(factory=dict)
    failed: set[str] = attrs.field(factory=set)
    settings: Any = None

    def error(self, key: str, problem: str) -> ConfigError:
        """A problem with a key, or with the section if the key is empty."""
        line = self.lines.get(key, self.raw.line)
        return ConfigError(self.raw.file, line, self.raw.header, key, problem)


def build(raw: RawSection, errors: list[ConfigError]) -> Section | None:
    """Read a section.

    @param raw: its text.
    @param errors: where problems are added.
    @return: L{None} if it is not known what kind of section it is.
    """
    section = _identify(raw, errors)
    if section is None:
        return None
    for entry in raw.entries:
        key = entry.key if section.kind.is_pool else entry.key.lower()
        if key in section.lines:
            errors.append(
                ConfigError(
                    raw.file,
                    entry.line,
                    raw.header,
                    key,
                    f"is given twice (the first time on line {section.lines[key]})",
                )
            )
            continue
        section.lines[key] = entry.line
        if section.kind.is_pool:
            _read_weight(section, entry, errors)
        else:
            _read_key(section, key, entry.value, errors)
    _finish(section, errors)
    return section


def _identify(raw: RawSection, errors: list[ConfigError]) -> Section | None:
    """Find out from the header what a section is."""
    word, colon, label = (part.strip() for part in raw.header.partition(":"))
    word = word.lower()

    def wrong(problem: str) -> None:
        errors.append(ConfigError(raw.file, raw.line, raw.header, "", problem))

    kind = kind_of(word, label)
    if kind is None:
        if word in PLANNED_KINDS:
            wrong("the section is not supported yet")
        elif word:
            wrong("unknown section" + _meant_section(word, label))
        return None
    if not kind.label:
        if colon:
            wrong(f"the section takes no name ([{kind.form}])")
            return None
        return Section(raw, kind, "")
    if not label:
        wrong(f"the section needs a name ([{kind.form}])")
        return Section(raw, kind, None)
    try:
        return Section(raw, kind, kind.parse_name(label))
    except ValueError as error:
        wrong(str(error))
        return Section(raw, kind, None)


def _meant_section(word: str, label: str) -> str:
    near = nearest(word, KINDS)
    if near is None:
        return f" (one of {', '.join(f'[{kind.form}]' for kind in KINDS.values())})"
    named = f"{near}:{label}" if KINDS[near].label and label else KINDS[near].form
    return f" (did you mean [{named}]?)"


def _read_key(section: Section, key: str, text: str, errors: list[ConfigError]) -> None:
    kind = section.kind
    if key not in kind.keys:
        section.failed.add(key)
        errors.append(section.error(key, _unknown_key(kind, key)))
        return
    attribute, facts = kind.keys[key]
    try:
        section.values[attribute.name] = facts.kind.parse(text)
    except ValueError as error:
        section.failed.add(key)
        errors.append(section.error(key, str(error)))


def _unknown_key(kind: SectionKind, key: str) -> str:
    if key in kind.planned:
        return "is not supported yet"
    homes = [other.form for other in KINDS.values() if key in other.keys]
    if homes:
        return f"unknown key (a key of [{'], ['.join(homes)}])"
    return "unknown key" + did_you_mean(key, kind.keys)


def _read_weight(section: Section, entry: Entry, errors: list[ConfigError]) -> None:
    try:
        weight = WEIGHT.parse(entry.value)
    except ValueError as error:
        section.failed.add(entry.key)
        errors.append(section.error(entry.key, str(error)))
        return
    section.values.setdefault("entries", []).append(PoolEntry(entry.key, weight))


def _finish(section: Section, errors: list[ConfigError]) -> None:
    """Fill the defaults in and let the settings say what does not fit together."""
    missing = False
    for key, (_, facts) in section.kind.keys.items():
        if facts.required and key not in section.lines:
            errors.append(section.error(key, f"is missing ({facts.kind.name})"))
        missing = missing or (
            facts.required and (key not in section.lines or key in section.failed)
        )
    if missing:
        return
    values = dict(section.values)
    if section.kind.is_pool:
        values["entries"] = tuple(values.get("entries", ()))
    if section.kind.named:
        values["name"] = "" if section.name is None else str(section.name)
    section.settings = section.kind.settings(**values)
    if isinstance(section.settings, Checked):
        for problem in section.settings.problems():
            if section.failed.isdisjoint(problem.keys):
                errors.append(section.error(problem.keys[0], problem.text))
