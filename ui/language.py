"""Which language a person reads, and every text put into it: the one mechanism for all pages.

English stands in the code and is the key; other languages are gettext catalogues, one `<code>.po`
per language, found by listing folders. What a catalogue lacks, or says with other placeholders, is
shown in English. Components are built once for everybody: their texts are marked by `later` and put
into the reader's language when the page is sent (`ui/translated.py`). Knows no page, no database.
"""

from __future__ import annotations

import gettext
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from string import Formatter
from typing import Any, Literal, Protocol

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_decimal, format_percent

from backend.errors import ConfigurationError
from backend.wording import Counted, Sentence

CATALOGUES = Path(__file__).parent / "catalogues"
COOKIE = "attune_language"
SOURCE = "en"
# Of the private use area: nobody types them, and Gradio passes them on.
_OPEN, _CLOSE = "\ue000", "\ue001"
_LONGEST_TAG = 35
_NO_FOLDER = "there is no folder of languages {folder}"
_UNREADABLE = "cannot read the catalogue {path}: {why}"
_NOT_OFFERED = "there is no catalogue for the language {code}; there are: {codes}"

_log = logging.getLogger(__name__)


class Asking(Protocol):
    """A request, Starlette's or Gradio's."""

    @property
    def headers(self) -> Any: ...
    @property
    def cookies(self) -> Any: ...


def folders_of(more: Path | None) -> tuple[Path, ...]:
    """Our catalogues, and those of a folder of the operator's own."""
    return (CATALOGUES,) if more is None else (CATALOGUES, more.expanduser())


def later(text: str) -> str:
    """A text of a component, put into the reader's language when the page is sent."""
    return f"{_OPEN}{text}{_CLOSE}"


class Language:
    """One language: texts, numbers, dates, and which way it is read.

    Attributes:
        code: as in HTML's `lang`.
        name: what its speakers call it.
    """

    def __init__(self, locale: Locale, texts: gettext.NullTranslations) -> None:
        self._locale = locale
        self._texts = texts
        self.code = str(locale).replace("_", "-")
        self.name = locale.get_display_name() or self.code
        self.direction: Literal["ltr", "rtl"] = "rtl" if locale.text_direction == "rtl" else "ltr"

    def text(self, text: str | Counted, /, **values: Any) -> str:
        """`text` in this language, its placeholders filled; `count` decides about the plural.

        Whole numbers are quantities and are written as the language does; a number that is a name
        (of a version, say) comes as a string.
        """
        template = self.template(text, values.get("count", 1))
        return template.format(**self.written(values)) if values else template

    def written(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What fills placeholders, whole numbers as this language writes them."""
        return {
            name: self.number(value) if isinstance(value, int) else value
            for name, value in values.items()
        }

    def template(self, text: str | Counted, count: int = 1) -> str:
        """`text` in this language, its placeholders still open."""
        if isinstance(text, Counted):
            return self._texts.ngettext(text.one, text.many, count)
        return self._texts.gettext(text) if text else ""

    def sentence(self, sentence: Sentence) -> str:
        """A sentence of the backend in this language."""
        return self.text(sentence.text, **sentence.values)

    def number(self, value: int) -> str:
        """A quantity, its digits grouped."""
        return format_decimal(value, locale=self._locale)

    def percent(self, share: float) -> str:
        """A share of one as whole per cent."""
        return format_percent(share, locale=self._locale)

    def day(self, moment: datetime) -> str:
        """A date, short."""
        return format_date(moment, "medium", locale=self._locale)

    def moment(self, moment: datetime) -> str:
        """Date and time, short; the zone is the caller's to say."""
        return format_datetime(moment, "short", tzinfo=moment.tzinfo, locale=self._locale)


def english() -> Language:
    """The language of the code."""
    return Language(Locale(SOURCE), gettext.NullTranslations())


class Languages:
    """All languages there are, and who reads which.

    Args:
        fallback: for those whose browser asks for none of them.
        folders: where catalogues are; a later folder's wins.

    Raises:
        ConfigurationError: a catalogue cannot be read, or there is none for `fallback`.
    """

    def __init__(self, fallback: str = SOURCE, folders: Iterable[Path] = (CATALOGUES,)) -> None:
        known = {SOURCE: english()}
        for folder in folders:
            if not folder.is_dir():
                raise ConfigurationError(_NO_FOLDER.format(folder=folder))
            for path in sorted(folder.glob("*.po")):
                language = _read(path)
                known[language.code] = language
        self._known = {code.casefold(): language for code, language in known.items()}
        self.offered = tuple(sorted(known.values(), key=lambda one: one.code))
        if fallback.casefold() not in self._known:
            raise ConfigurationError(
                _NOT_OFFERED.format(code=fallback, codes=", ".join(sorted(known)))
            )
        self._fallback = self._known[fallback.casefold()]

    def offers(self, code: str) -> bool:
        """Whether there is a language of that code."""
        return code.casefold() in self._known

    def of(self, request: Asking) -> Language:
        """The language of whoever asks: the one they chose, else their browser's, else ours."""
        kept = str(request.cookies.get(COOKIE) or "").casefold()
        if kept in self._known:
            return self._known[kept]
        for wanted in _accepted(request.headers.get("accept-language") or ""):
            parts = wanted.casefold().split("-")
            while parts:
                if (code := "-".join(parts)) in self._known:
                    return self._known[code]
                parts.pop()
        return self._fallback


def _accepted(header: str) -> list[str]:
    """The tags of an Accept-Language header, the most wanted first."""
    weighed = []
    for place, part in enumerate(header.split(",")[:50]):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), place, tag.strip()[:_LONGEST_TAG]))
        except ValueError:
            continue
    return [tag for weight, _, tag in sorted(weighed) if weight < 0]


def _read(path: Path) -> Language:
    try:
        locale = Locale.parse(path.stem, sep="-" if "-" in path.stem else "_")
        with path.open("rb") as file:
            catalogue = read_po(file, locale=locale, abort_invalid=True)
        compiled = BytesIO()
        write_mo(compiled, _fitting(catalogue, path))
        compiled.seek(0)
        return Language(locale, gettext.GNUTranslations(compiled))
    except (OSError, ValueError, UnknownLocaleError, PoFileError) as error:
        raise ConfigurationError(_UNREADABLE.format(path=path, why=error)) from error


def _fitting(catalogue: Catalog, path: Path) -> Catalog:
    """The catalogue without what its texts' placeholders could not be filled for."""
    for message in list(catalogue):
        allowed = set[str]().union(*(placeholders(text) or () for text in forms(message.id)))
        used = [placeholders(text) for text in forms(message.string)]
        if message.id and not all(names is not None and names <= allowed for names in used):
            _log.warning("%s: placeholders of %r do not fit", path, message.id)
            catalogue.delete(message.id)
    return catalogue


def forms(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """A message's text, or its texts for the plurals there are."""
    return (text,) if isinstance(text, str) else tuple(text or ())


def placeholders(text: str) -> frozenset[str] | None:
    """The names in braces; None where the braces do not match."""
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)
    except ValueError:
        return None
