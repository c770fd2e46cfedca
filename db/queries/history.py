"""SQL for one user's own record: what was chosen, and how it was foreseen. Never commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import Session, selectinload

from db.models import Choice, Comparison, PrequentialScore, Prompt, Response, Version
from db.queries.comparisons import effective
from db.queries.evidence import personal_forecast, stands, wrong_forecast


@dataclass(frozen=True, slots=True)
class Standing:
    """A comparison with the choice that stands on it."""

    comparison: Comparison
    choice: Choice


def standing_choices(
    session: Session, user_id: int, search: str, *, offset: int, limit: int
) -> Sequence[Standing]:
    """This user's choices that stand, skips included, last seen first.

    Args:
        search: what prompt, a response or the reason contains; empty finds all.
    """
    statement = (
        _standing(user_id, search)
        .options(selectinload(Comparison.prompt))
        # By when the pair was seen, not by the choice: an edited one stays where it was.
        .order_by(Comparison.shown_at.desc(), Comparison.id.desc())
        .offset(offset)
        .limit(limit)
    )
    return [Standing(comparison, choice) for comparison, choice in session.execute(statement)]


def count_standing(session: Session, user_id: int, search: str) -> int:
    """How many there are."""
    found = _standing(user_id, search).with_only_columns(func.count(Choice.id))
    return session.scalar(found) or 0


def standing_choice(session: Session, user_id: int, comparison_id: int) -> Standing | None:
    """The choice that stands on one comparison of this user's, with both responses."""
    statement = (
        _standing(user_id, "")
        .where(Comparison.id == comparison_id)
        .options(selectinload(Comparison.prompt), selectinload(Comparison.responses))
    )
    row = session.execute(statement).first()
    return Standing(row[0], row[1]) if row is not None else None


def newest_choice(session: Session, user_id: int) -> tuple[int, datetime] | None:
    """Which choice of this user's is the newest, of any kind: each change makes a newer one.

    With its time, as SQLite may give an erased row's id to the next one.
    """
    newest = (
        select(Choice.id, Choice.created_at)
        .where(Choice.user_id == user_id)
        .order_by(Choice.id.desc())
        .limit(1)
    )
    row = session.execute(newest).first()
    return (row[0], row[1]) if row is not None else None


def own_forecasts(
    session: Session, identity: str, user_id: int
) -> Sequence[tuple[float, float, float | None]]:
    """Prequential forecasts (personal, generic, wrong user's) of verdicts that stand, in order."""
    statement = (
        select(
            personal_forecast(),
            PrequentialScore.generic_nats,
            wrong_forecast(),
        )
        .join(Choice, Choice.id == PrequentialScore.choice_id)
        .join(Version, Version.id == PrequentialScore.version_id)
        .where(PrequentialScore.user_id == user_id, Version.base_identity == identity, stands())
        .order_by(Choice.id)
    )
    return [(mine, shared, wrong) for mine, shared, wrong in session.execute(statement)]


def _standing(user_id: int, search: str) -> Select[Comparison, Choice]:
    statement = (
        select(Comparison, Choice)
        .join(Choice, Choice.comparison_id == Comparison.id)
        .where(Comparison.user_id == user_id, Choice.verdict != "withdrawn", effective())
    )
    return statement.where(_contains(search)) if search else statement


def _contains(search: str) -> ColumnElement[bool]:
    return or_(
        Choice.reason.icontains(search, autoescape=True),
        exists().where(
            Prompt.id == Comparison.prompt_id, Prompt.text.icontains(search, autoescape=True)
        ),
        exists().where(
            Response.comparison_id == Comparison.id,
            Response.text.icontains(search, autoescape=True),
        ),
    )
