"""What people typed, as a database can keep it. Knows nothing of what it is for."""

from __future__ import annotations

import unicodedata


def storable(text: str) -> str:
    """`text` trimmed, without NUL and without halves of surrogate pairs.

    Postgres takes no NUL, and half a pair, which JSON may carry, has no UTF-8.
    """
    kept = (letter for letter in text if letter != "\x00" and unicodedata.category(letter) != "Cs")
    return "".join(kept).strip()
