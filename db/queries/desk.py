"""SQL for the desk beyond one pair: repeats, what a user asked for, today's work.

Takes a Session, never commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased, selectinload

from db.models import Choice, Comparison, Prompt, Response, UnwantedPrompt, User
from db.queries.comparisons import COUNTED, effective, unwanted


def repeatable_ids(session: Session, user_id: int, *, apart: int, limit: int) -> Sequence[int]:
    """Comparisons this user judged, that may be shown once more; newest first.

    Bank prompts only, never a repeat, nothing stopped, revealed or refused.

    Args:
        apart: leave out the newest so many.
    """
    again = aliased(Comparison)
    statement = (
        select(Comparison.id)
        .join(Choice, Choice.comparison_id == Comparison.id)
        .join(Prompt, Prompt.id == Comparison.prompt_id)
        .where(Comparison.user_id == user_id, Choice.verdict.in_(COUNTED), effective())
        .where(
            Prompt.owner_id.is_(None),
            Comparison.repeat_of_id.is_(None),
            Comparison.stopped_at.is_(None),
            Comparison.revealed_at.is_(None),
            ~exists().where(again.repeat_of_id == Comparison.id),
            ~unwanted(user_id),
        )
        .order_by(Choice.id.desc())
        .offset(apart)
        .limit(limit)
    )
    return session.scalars(statement).all()


def with_responses(session: Session, comparison_id: int) -> Comparison:
    """A comparison and its two responses."""
    statement = select(Comparison).where(Comparison.id == comparison_id)
    return session.scalars(statement.options(selectinload(Comparison.responses))).one()


def judged_twice(session: Session, user_id: int | None = None) -> Sequence[tuple[int, str, str]]:
    """(user, first verdict, verdict on the repeat) wherever both stand. The sides were swapped.

    Args:
        user_id: of this user alone.
    """
    again, second = aliased(Comparison), aliased(Choice)
    newer = aliased(Choice)
    statement = (
        select(again.user_id, Choice.verdict, second.verdict)
        .join(again, again.repeat_of_id == Choice.comparison_id)
        .join(second, second.comparison_id == again.id)
        .where(Choice.verdict.in_(COUNTED), effective())
        .where(second.verdict.in_(COUNTED), ~exists().where(newer.supersedes_id == second.id))
    )
    if user_id is not None:
        statement = statement.where(again.user_id == user_id)
    return [(whose, first, then) for whose, first, then in session.execute(statement)]


def count_choices_since(session: Session, user_id: int, since: datetime) -> int:
    """How many comparisons this user has judged since then, by the choice that stands."""
    statement = select(func.count(Choice.id)).where(
        Choice.user_id == user_id,
        Choice.verdict.in_(COUNTED),
        Choice.created_at >= since,
        effective(),
    )
    return session.scalar(statement) or 0


def bank_topics(session: Session) -> Sequence[str]:
    """Every topic of the bank, by name."""
    statement = select(Prompt.topic).where(Prompt.owner_id.is_(None), Prompt.active).distinct()
    return session.scalars(statement.order_by(Prompt.topic)).all()


def user(session: Session, user_id: int) -> User:
    """The user; there must be one."""
    return session.get_one(User, user_id)


def refuse_prompt(session: Session, user_id: int, prompt_id: int, at: datetime) -> None:
    """Never issue this prompt to this user again; pairs of it made ahead are put away."""
    if session.get(UnwantedPrompt, (user_id, prompt_id)) is None:
        session.add(UnwantedPrompt(user_id=user_id, prompt_id=prompt_id, created_at=at))
    session.execute(
        update(Comparison)
        .where(
            Comparison.user_id == user_id,
            Comparison.prompt_id == prompt_id,
            Comparison.shown_at.is_(None),
            Comparison.retired_at.is_(None),
        )
        .values(retired_at=at),
        execution_options={"synchronize_session": False},
    )


def accept_prompt(session: Session, user_id: int, prompt_id: int) -> None:
    """Take a refusal back."""
    session.execute(
        delete(UnwantedPrompt).where(
            UnwantedPrompt.user_id == user_id, UnwantedPrompt.prompt_id == prompt_id
        )
    )


def usual_seconds(session: Session, version_id: int, responses: int) -> float | None:
    """How long this version's newest responses took on average; None before the first.

    Pairs with several drafts are left out: they take longer, and nobody waits for them.
    """
    drafted = aliased(Response)
    with_drafts = exists().where(
        drafted.comparison_id == Response.comparison_id, drafted.drafts > 1
    )
    newest = (
        select(Response.seconds)
        .where(Response.version_id == version_id, ~with_drafts)
        .order_by(Response.id.desc())
        .limit(responses)
        .subquery()
    )
    return session.scalar(select(func.avg(newest.c.seconds)))
