"""What people read, before it is put into their language: English templates and their values.

English texts are the keys of the catalogues in `ui/catalogues/`; `msg` and `Counted` mark one for
them. Knows no language but English and no page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def msg(text: str) -> str:
    """The text itself; marks it for the catalogues."""
    return text


class Counted(NamedTuple):
    """A text in singular and plural; the value named `count` decides."""

    one: str
    many: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with its values; `str(sentence)` is the English one."""

    text: str | Counted
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        template = self.text
        if isinstance(template, Counted):
            template = template.one if self.values["count"] == 1 else template.many
        return template.format(**self.values) if self.values else template
