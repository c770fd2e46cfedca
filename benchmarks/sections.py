"""Sections of docs/RESULTS.md that commands write: what stands between two comments."""

from __future__ import annotations

from pathlib import Path


def put_between(document: Path, mark: str, content: str) -> None:
    """Replace what stands between the two comments `<!-- mark: begin -->` and `… end -->`."""
    text = document.read_text("utf-8")
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    document.write_text(f"{before}{begin}\n\n{content}\n{end}{after}", "utf-8")
