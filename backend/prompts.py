"""The prompt bank: shipped prompts → database, and which one a user gets next.

Knows nothing of responses.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from sqlalchemy.orm import Session

from backend.errors import InvalidInput, Unavailable
from db.models import Prompt
from db.queries import comparisons as queries
from db.session import Database

OWN_TOPIC = "Your question"
_STALE_CHOICES = 20


def import_bank(database: Database, now: datetime) -> int:
    """Add the shipped prompts the database does not have yet; returns how many were added."""
    with database.write() as session:
        known = queries.bank_keys(session)
        added = 0
        for entry in shipped():
            key = hashlib.sha256(entry["text"].encode()).hexdigest()
            if key not in known:
                session.add(
                    Prompt(text=entry["text"], topic=entry["topic"], bank_key=key, created_at=now)
                )
                added += 1
    return added


def shipped() -> list[dict[str, str]]:
    """The prompts that come with Attune, in their order: `text` and `topic` of each."""
    text = files("backend").joinpath("data/prompts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def next_prompt_id(session: Session, user_id: int, taken: Sequence[int], rng: random.Random) -> int:
    """A bank prompt this user has not seen; the one seen longest ago when all were.

    Args:
        taken: prompts of pairs being made for the user right now.

    Raises:
        Unavailable: the bank is empty.
    """
    fresh = [i for i in queries.fresh_prompt_ids(session, user_id) if i not in taken]
    stale = queries.stalest_prompt_ids(session, user_id, _STALE_CHOICES) if not fresh else ()
    choice = fresh or [i for i in stale if i not in taken]
    if not choice:
        raise Unavailable("There is no prompt in the bank. Ask a question of your own.")
    return rng.choice(choice)


def checked_own_text(text: str, max_chars: int) -> str:
    """A user's own prompt, trimmed.

    Raises:
        InvalidInput: empty or too long.
    """
    trimmed = text.replace("\x00", "").strip()
    if not trimmed:
        raise InvalidInput("Type a question first.")
    if len(trimmed) > max_chars:
        raise InvalidInput(
            f"That is {len(trimmed):,} characters; at most {max_chars:,} fit. Please shorten it."
        )
    return trimmed
