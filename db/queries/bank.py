"""SQL for the prompt bank as it is brought up to date. Takes a Session, never commits."""

from __future__ import annotations

from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from db.models import Prompt, UnwantedPrompt
from db.session import one_at_a_time

_ADVISORY_KEY = 20402_05134  # any fixed number: one process at a time on Postgres


def lock_bank(session: Session) -> None:
    """Until the transaction ends, nobody else changes the bank."""
    one_at_a_time(session, _ADVISORY_KEY)


def bank_by_key(session: Session) -> dict[str, Prompt]:
    """Key → bank prompt in its present wording, those turned off included."""
    keyed = session.scalars(select(Prompt).where(Prompt.bank_key.is_not(None)))
    return {prompt.bank_key: prompt for prompt in keyed if prompt.bank_key is not None}


def former_wordings(session: Session) -> dict[str, Prompt]:
    """Text → bank prompt that another wording has replaced."""
    statement = select(Prompt).where(Prompt.owner_id.is_(None), Prompt.bank_key.is_(None))
    return {prompt.text: prompt for prompt in session.scalars(statement)}


def hand_on_refusals(session: Session, former_id: int, present_id: int) -> None:
    """Whoever never wants the one prompt again does not want the other either."""
    known = select(UnwantedPrompt.user_id).where(UnwantedPrompt.prompt_id == present_id)
    refusals = select(UnwantedPrompt.user_id, literal(present_id), UnwantedPrompt.created_at).where(
        UnwantedPrompt.prompt_id == former_id, UnwantedPrompt.user_id.not_in(known)
    )
    session.execute(
        insert(UnwantedPrompt).from_select(["user_id", "prompt_id", "created_at"], refusals)
    )
