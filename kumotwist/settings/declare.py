"""Fields of attrs classes that know how they are written in a configuration file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import attrs

from kumotwist.settings.kind import SettingType

__all__ = ["Checked", "Problem", "Setting", "declared", "setting"]

_T = TypeVar("_T")
_KEY = "kumotwist.setting"


@attrs.define(frozen=True)
class Setting:
    """What is known of one key besides its value.

    @ivar kind: how its text is read, written and described.
    @ivar doc: one or two sentences for the reference page.
    @ivar key: its name in the file, where it differs from the attribute's name.
    @ivar required: whether a section without it is an error.
    @ivar default_doc: what the default is, in words, where its value would not say it.
    """

    kind: SettingType[Any]
    doc: str
    key: str | None = None
    required: bool = False
    default_doc: str | None = None


class Problem(NamedTuple):
    """What is wrong with a section whose values are each well-formed.

    @ivar keys: the keys that are involved; the first is the one to point at.
    @ivar text: what is wrong (and what would be right), without any secret.
    """

    keys: tuple[str, ...]
    text: str


@runtime_checkable
class Checked(Protocol):
    """A settings class whose values depend on each other."""

    def problems(self) -> Iterable[Problem]:
        """What does not fit together."""


def setting(
    kind: SettingType[_T],
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    key: str | None = None,
    default_doc: str | None = None,
) -> Any:
    """Declare a setting as a field of an attrs class.

    @param kind: the type (see L{kumotwist.settings.types}).
    @param doc: what it is for, as the reference page says it.
    @param default: the value when the key is absent; without one the key is required.
    @param factory: makes the default instead, for a default that is only known at run time.
    @param key: the key's name in the file, if the attribute cannot have that name.
    @param default_doc: the default in words, such as C{STATE_DIR/log}.
    """
    required = default is attrs.NOTHING and factory is None
    metadata = {_KEY: Setting(kind, doc, key, required, default_doc)}

    def show(value: Any) -> str:
        return repr(value) if value is None else kind.render(value)

    # A repr ends up in tracebacks and logs: there, secrets are masked like everywhere else.
    shown: Any = True if kind.reveal is kind.render else show
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata, kw_only=True, repr=shown)
    return attrs.field(default=default, metadata=metadata, kw_only=True, repr=shown)


_declared: dict[type, Mapping[str, tuple[attrs.Attribute[Any], Setting]]] = {}


def declared(cls: type) -> Mapping[str, tuple[attrs.Attribute[Any], Setting]]:
    """The settings of a class by their keys, in the order of declaration, inherited ones last."""
    if cls in _declared:
        return _declared[cls]
    found = {}
    for attribute in sorted(attrs.fields(cls), key=lambda attribute: attribute.inherited):
        if _KEY in attribute.metadata:
            facts = attribute.metadata[_KEY]
            found[facts.key or attribute.name] = (attribute, facts)
    return _declared.setdefault(cls, MappingProxyType(found))
