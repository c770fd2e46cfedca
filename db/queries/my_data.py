"""SQL for one user's download: everything theirs, some rows at a time. Never commits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from db.models import (
    Choice,
    Comparison,
    PrequentialScore,
    Prompt,
    Round,
    RoundPair,
    UnwantedPrompt,
    WebSession,
)
from db.queries.comparisons import effective


def comparisons(session: Session, user_id: int, after: int, limit: int) -> Sequence[Comparison]:
    """This user's comparisons with prompt and responses, in order, from past id `after` on."""
    statement = (
        select(Comparison)
        .where(Comparison.user_id == user_id, Comparison.id > after)
        .options(selectinload(Comparison.prompt), selectinload(Comparison.responses))
        .order_by(Comparison.id)
        .limit(limit)
    )
    return session.scalars(statement).all()


def answered(session: Session, comparison_ids: Sequence[int]) -> frozenset[int]:
    """Those on which a choice stands."""
    statement = select(Choice.comparison_id).where(
        Choice.comparison_id.in_(comparison_ids), Choice.verdict != "withdrawn", effective()
    )
    return frozenset(session.scalars(statement))


def choices(session: Session, user_id: int, after: int, limit: int) -> Sequence[Choice]:
    """This user's choices, superseded ones too."""
    statement = select(Choice).where(Choice.user_id == user_id, Choice.id > after)
    return session.scalars(statement.order_by(Choice.id).limit(limit)).all()


def uses(session: Session, choice_ids: Sequence[int]) -> Sequence[tuple[int, int, str, str]]:
    """(choice, round, use, how the round ended) of these choices."""
    statement = (
        select(RoundPair.choice_id, RoundPair.round_id, RoundPair.use, Round.status)
        .join(Round, Round.id == RoundPair.round_id)
        .where(RoundPair.choice_id.in_(choice_ids))
        .order_by(RoundPair.choice_id, RoundPair.round_id)
    )
    return [
        (choice, number, use, status) for choice, number, use, status in session.execute(statement)
    ]


def scores(session: Session, user_id: int, after: int, limit: int) -> Sequence[PrequentialScore]:
    """This user's prequential scores."""
    statement = select(PrequentialScore).where(
        PrequentialScore.user_id == user_id, PrequentialScore.choice_id > after
    )
    return session.scalars(statement.order_by(PrequentialScore.choice_id).limit(limit)).all()


def own_prompts(session: Session, user_id: int) -> Sequence[Prompt]:
    """What this user asked."""
    return session.scalars(
        select(Prompt).where(Prompt.owner_id == user_id).order_by(Prompt.id)
    ).all()


def unwanted(session: Session, user_id: int) -> Sequence[tuple[UnwantedPrompt, str]]:
    """Prompts this user never wants again, with their texts."""
    statement = (
        select(UnwantedPrompt, Prompt.text)
        .join(Prompt, Prompt.id == UnwantedPrompt.prompt_id)
        .where(UnwantedPrompt.user_id == user_id)
        .order_by(Prompt.id)
    )
    return [(row, text) for row, text in session.execute(statement)]


def sessions(session: Session, user_id: int) -> Sequence[WebSession]:
    """This user's sessions."""
    statement = select(WebSession).where(WebSession.user_id == user_id)
    return session.scalars(statement.order_by(WebSession.id)).all()
