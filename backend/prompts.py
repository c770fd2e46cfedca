"""The prompt bank: shipped prompts → database, and which one a user gets next.

Knows nothing of responses.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from backend.errors import InvalidInput, Unavailable
from backend.shipped_prompts import shipped, with_ending
from backend.typed_text import storable
from backend.wording import msg
from db.models import Prompt
from db.queries import bank as bank_queries
from db.queries import comparisons as queries
from db.queries import desk as desk_queries
from db.session import Database
from trainer.types import Message

_TOO_LONG = msg("That is {length} characters; at most {most} fit. Please shorten it.")
OWN_TOPIC = msg("Your question")
_STALE_CHOICES = 20
_LIKED_SHARE = 0.8  # of prompts, from liked topics; the rest keeps the others from going unseen


def import_bank(database: Database, now: datetime, ending: str = "") -> int:
    """Have the shipped prompts asked with this ending; returns how many were new to the database.

    The text of a prompt never changes, as comparisons name it: with another ending it is another
    prompt, which takes the former one's place. What was turned off or refused stays so.
    """
    with database.write() as session:
        bank_queries.lock_bank(session)
        known = bank_queries.bank_by_key(session)
        former = bank_queries.former_wordings(session)
        added = 0
        for entry in shipped():
            key = hashlib.sha256(entry["text"].encode()).hexdigest()
            text = with_ending(entry["text"], ending)
            present = known.get(key)
            if present is None:
                session.add(Prompt(text=text, topic=entry["topic"], bank_key=key, created_at=now))
                added += 1
            elif present.text != text:
                wording = former.get(text)
                if wording is None:
                    wording = Prompt(text=text, topic=entry["topic"], created_at=now)
                _replace(session, present, wording)
    return added


def _replace(session: Session, present: Prompt, wording: Prompt) -> None:
    """Ask the prompt in another wording from now on; comparisons keep the one they were made of."""
    key, active = present.bank_key, present.active
    present.bank_key, present.active = None, False
    session.flush()  # keys are unique: the one must be gone before the other has it
    wording.bank_key, wording.active = key, active
    session.add(wording)
    session.flush()
    bank_queries.hand_on_refusals(session, present.id, wording.id)


def next_prompt_id(session: Session, user_id: int, taken: Sequence[int], rng: random.Random) -> int:
    """A bank prompt this user has not seen; the one seen longest ago when all were.

    Mostly of the topics the user likes, where some are named; never one the user refused.

    Args:
        taken: prompts of pairs being made for the user right now.

    Raises:
        Unavailable: the bank is empty.
    """
    liked = desk_queries.user(session, user_id).liked_topics or ()
    of_liked = liked and rng.random() < _LIKED_SHARE
    fresh = _fresh(session, user_id, taken, liked) if of_liked else []
    fresh = fresh or _fresh(session, user_id, taken, ())
    stale = queries.stalest_prompt_ids(session, user_id, _STALE_CHOICES) if not fresh else ()
    choice = fresh or [i for i in stale if i not in taken]
    if not choice:
        raise Unavailable(msg("There is no prompt in the bank. Ask a question of your own."))
    return rng.choice(choice)


def _fresh(
    session: Session, user_id: int, taken: Sequence[int], topics: Sequence[str]
) -> list[int]:
    return [i for i in queries.fresh_prompt_ids(session, user_id, topics) if i not in taken]


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """The whole conversation the model is asked to go on with: earlier turns, then the prompt."""
    earlier = [Message(role=turn["role"], content=turn["content"]) for turn in prompt.earlier or ()]
    return (*earlier, Message(role="user", content=prompt.text))


def checked_own_text(text: str, max_chars: int) -> str:
    """A user's own prompt, trimmed.

    Raises:
        InvalidInput: empty or too long.
    """
    trimmed = storable(text)
    if not trimmed:
        raise InvalidInput(msg("Type a question first."))
    if len(trimmed) > max_chars:
        raise InvalidInput(_TOO_LONG, length=len(trimmed), most=max_chars)
    return trimmed
