"""What people typed is kept, but for what no database takes."""

from __future__ import annotations

import pytest

from backend.typed_text import storable


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" a\x00b\n", "ab"),
        ("a\ud83d", "a"),
        ("\ude00 a", "a"),
        ("two\nlines, 👍🏽 and کوتاه می\u200cنویسم", "two\nlines, 👍🏽 and کوتاه می\u200cنویسم"),
    ],
)
def test_nul_and_halves_of_pairs_are_dropped(typed: str, kept: str) -> None:
    assert storable(typed) == kept
