"""Brings the catalogues of all languages up to the texts in the code.

Run `python -m dev.catalogues` after changing a text: new ones are added without a translation, what
is gone is dropped. A language is added with `python -m dev.catalogues fr`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

from backend.shipped_prompts import shipped

_ROOT = Path(__file__).parent.parent
_CATALOGUES = _ROOT / "ui" / "catalogues"
_PYTHON = {"msg": None, "Counted": (1, 2)}
_TEMPLATES = {"_": None, "_n": (1, 2)}
_WIDTH = 100
_HEADER = """\
# Attune’s pages; the keys are the English texts in the code (`python -m dev.catalogues`).
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: {plurals}\\n"

"""


def texts() -> Catalog:
    """Every text that has to be in a catalogue."""
    template = Catalog()
    for where, text in _found():
        template.add(text, locations=[(where, 1)])
    return template


def update(path: Path, template: Catalog) -> None:
    """Write the catalogue with the texts there are now."""
    locale = Locale.parse(path.stem)
    catalogue = Catalog(locale=locale)
    if path.exists():
        with path.open("rb") as file:
            catalogue = read_po(file, locale=locale)
    catalogue.update(template, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    with path.open("wb") as file:
        write(file, catalogue)


def write(file: IO[bytes], catalogue: Catalog) -> None:
    """The catalogue as a file that changes only where its texts do."""
    text = BytesIO()
    write_po(text, catalogue, width=_WIDTH, omit_header=True, no_location=True)
    file.write(_HEADER.format(plurals=catalogue.plural_forms).encode() + text.getvalue())


def _found() -> Iterator[tuple[str, str | tuple[str, ...]]]:
    sources = sorted([*_ROOT.glob("*.py"), *_ROOT.glob("backend/**/*.py"), *_ROOT.glob("ui/*.py")])
    for path in sources:
        yield from _extracted(path, "python", _PYTHON)
    for path in sorted(_ROOT.glob("ui/templates/*.html")):
        yield from _extracted(path, "jinja2.ext:babel_extract", _TEMPLATES)
    for path in sorted(_ROOT.glob("ui/assets/*.js")):
        yield from _extracted(path, "javascript", {"msg": None})
    for topic in sorted({entry["topic"] for entry in shipped()}):
        yield "backend/data/prompts.jsonl", topic


def _extracted(
    path: Path, method: str, keywords: dict[str, Any]
) -> Iterator[tuple[str, str | tuple[str, ...]]]:
    where = str(path.relative_to(_ROOT))
    for _line, text, _comments, _context in extract_from_file(
        method, path, keywords=keywords, options={"silent": "false"}
    ):
        yield where, text


def main(arguments: Sequence[str]) -> None:
    """Update every catalogue; begin those of the languages named."""
    template = texts()
    new = [_CATALOGUES / f"{code}.po" for code in arguments]
    for path in sorted({*_CATALOGUES.glob("*.po"), *new}):
        update(path, template)


if __name__ == "__main__":
    main(sys.argv[1:])
