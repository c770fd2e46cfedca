"""The bank of prompts the browser draws its comparisons from."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

BANK = Path(__file__).resolve().parents[2] / "backend" / "data" / "prompts.jsonl"


def _lines() -> list[str]:
    """The file's lines, split at newlines alone, without the final newline."""
    text = BANK.read_bytes().decode("utf-8")
    assert text.endswith("\n"), "the last line must end in a newline"
    return text[:-1].split("\n")


def _entries() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines()]


def _words(text: str) -> list[str]:
    """Casefolded words: punctuation counts as nothing, white space as one gap."""
    kept = "".join(c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
    return kept.split()


def test_enough_prompts() -> None:
    assert len(_entries()) >= 300


def test_keys_are_exactly_text_and_topic() -> None:
    for number, entry in enumerate(_entries(), start=1):
        assert isinstance(entry, dict), f"line {number} is not an object"
        assert set(entry) == {"text", "topic"}, f"line {number}: {sorted(entry)}"
        for key, value in entry.items():
            assert isinstance(value, str), f"line {number}: {key} is not a string"
            assert value, f"line {number}: {key} is empty"
            assert value.strip() == value, f"line {number}: {key} is padded"


def test_lengths() -> None:
    wrong = [e["text"] for e in _entries() if not 20 <= len(e["text"]) <= 200]
    assert wrong == []


def test_prompts_are_unique() -> None:
    counts = Counter(" ".join(_words(e["text"])) for e in _entries())
    assert [text for text, count in counts.items() if count > 1] == []


def test_topics_are_broad_and_filled() -> None:
    topics = Counter(e["topic"] for e in _entries())
    filled = [topic for topic, count in topics.items() if count >= 12]
    assert len(filled) >= 12, topics
    assert [topic for topic in topics if topic not in filled] == [], "thin topics"


def test_openings_vary() -> None:
    entries = _entries()
    openings = Counter(" ".join(_words(e["text"])[:2]) for e in entries)
    limit = 0.08 * len(entries)
    assert {o: count for o, count in openings.items() if count > limit} == {}


def test_only_printable_characters() -> None:
    # str.isprintable is true of the ASCII space and false of tabs, carriage
    # returns, zero-width characters, no-break spaces and unassigned code points.
    for number, line in enumerate(_lines(), start=1):
        assert line.isprintable(), f"line {number}: {line!r}"
        # An escape such as \u200b is printable on the line but not once parsed.
        for value in json.loads(line).values():
            assert value.isprintable(), f"line {number}: {value!r}"
        assert re.search(r" {2}", line) is None, f"line {number}: two spaces in a row"
