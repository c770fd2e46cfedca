"""SQL for prequential scores and blind results. Takes a Session, never commits.

A score belongs to a verdict on a comparison, not to a row of `choices`: adding a reason makes a new
row with the same verdict and is no new choice. A score counts while that verdict stands.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Session, aliased

from db.models import (
    Choice,
    Comparison,
    PrequentialScore,
    Response,
    Round,
    RoundPair,
    User,
    Version,
)
from db.queries.comparisons import COUNTED, PAIR_VERDICTS, effective, repeated
from db.queries.rounds import consumed, made_with, scored, trained_on

# Pairs count as of one length when their token counts differ by at most this share of the longer.
LENGTH_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Count:
    """How many outcomes were 1, ½ and 0."""

    wins: int
    halves: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCounts:
    """Margins above, at and below 0 of one group of scores.

    Attributes:
        group: what the scores were grouped by.
        matched: personal margins, of pairs of one length only.
    """

    group: tuple[Any, ...]
    personal: Count
    generic: Count
    wrong: Count
    matched: Count


@dataclass(frozen=True, slots=True)
class BlindCount:
    """So many blind comparisons of a user, made by a version, ended so: personal is `won` or not.

    Attributes:
        fitted: the personal one was the best of some drafts, or the user's own words stood in its
            prompt: it was made for this user whatever vector there was.
        verdict: `won`, `lost`, `tie` or `both_bad`, as personal sees it.
    """

    user_id: int
    version_id: int
    fitted: bool
    verdict: str
    count: int


def to_score(
    session: Session, identity: str, excluding: Collection[int], limit: int
) -> Sequence[Choice]:
    """Choices with a pair that nobody has scored and no round has used, oldest first.

    Args:
        identity: the base model that made the responses.
        excluding: choices to leave out.
    """
    statement = (
        select(Choice)
        .where(*_unscored(), made_with(identity), Choice.id.not_in(excluding))
        .order_by(Choice.id)
        .limit(limit)
    )
    return session.scalars(statement).all()


def lock_to_score(session: Session, choice_id: int) -> Choice | None:
    """The choice if it still waits for its score; its comparison is locked until the commit."""
    choice = session.get(Choice, choice_id)
    if choice is None:
        return None
    # One comparison may have two rows of one verdict: both processes meet at the comparison.
    lock = select(Comparison.id).where(Comparison.id == choice.comparison_id).with_for_update()
    session.execute(lock)
    return session.scalars(select(Choice).where(Choice.id == choice_id, *_unscored())).first()


def pairs_before(session: Session, choice: Choice) -> int:
    """How many pairs this user had judged before this choice."""
    statement = select(func.count(Choice.id)).where(
        Choice.user_id == choice.user_id,
        Choice.verdict.in_(PAIR_VERDICTS),
        Choice.id < choice.id,
        effective(),
        ~repeated(),
    )
    return session.scalar(statement) or 0


def served_profile(session: Session, user_id: int) -> str:
    """The profile that stood in the prompt of this user's newest personal response; or nothing."""
    statement = (
        select(Response.profile)
        .join(Comparison, Comparison.id == Response.comparison_id)
        .where(Comparison.user_id == user_id, Response.condition == "personal")
        .order_by(Response.id.desc())
        .limit(1)
    )
    return session.scalar(statement) or ""


def texts_of(session: Session, choice_id: int) -> tuple[str, str] | None:
    """(text preferred, text passed over) of this choice; None where it is gone or has no pair."""
    statement = (
        select(Choice.verdict, Response.side, Response.text)
        .join(Response, Response.comparison_id == Choice.comparison_id)
        .where(Choice.id == choice_id, Choice.verdict.in_(PAIR_VERDICTS))
    )
    texts = {side.lower() == verdict: text for verdict, side, text in session.execute(statement)}
    return (texts[True], texts[False]) if len(texts) == 2 else None


def lineage(session: Session) -> Sequence[tuple[int, int | None, int | None]]:
    """Every version: its id, its round, and the version that round began from; oldest first."""
    statement = (
        select(Version.id, Version.round_id, Round.parent_id)
        .outerjoin(Round, Round.id == Version.round_id)
        .order_by(Version.id)
    )
    return [(version, made_by, parent) for version, made_by, parent in session.execute(statement)]


def users_trained(session: Session, user_id: int | None = None) -> Sequence[tuple[int, int]]:
    """Each promoted round with each user whose choices it trained on; or with this one alone."""
    statement = (
        select(RoundPair.round_id, Choice.user_id)
        .join(Choice, Choice.id == RoundPair.choice_id)
        .join(Round, Round.id == RoundPair.round_id)
        .where(Round.status == "promoted", RoundPair.use.in_(("new", "replay")))
        .distinct()
    )
    if user_id is not None:
        statement = statement.where(Choice.user_id == user_id)
    return [(round_id, trained) for round_id, trained in session.execute(statement)]


def scores_by_user(session: Session, identity: str) -> Sequence[ScoreCounts]:
    """Grouped by user id."""
    return _score_counts(session, identity, (PrequentialScore.user_id,))


def scores_by_version(session: Session, identity: str) -> Sequence[ScoreCounts]:
    """Grouped by the version that scored and whether the user is simulated."""
    return _score_counts(session, identity, (PrequentialScore.version_id, User.is_simulated))


def scores_by_experience(
    session: Session, identity: str, *, simulated: bool, user_id: int | None, width: int
) -> Sequence[ScoreCounts]:
    """Grouped by pairs the user had judged before, in steps of `width`; of one user or of all."""
    step = (PrequentialScore.nth // width).label("step")
    whose = User.is_simulated == simulated if user_id is None else User.id == user_id
    counts = _score_counts(session, identity, (step,), whose)
    return sorted(counts, key=lambda each: each.group)


def most_pairs(session: Session, *, simulated: bool, user_id: int | None) -> int:
    """The largest number of pairs a user had judged before a scored choice."""
    whose = User.is_simulated == simulated if user_id is None else User.id == user_id
    statement = select(func.max(PrequentialScore.nth)).join(
        User, User.id == PrequentialScore.user_id
    )
    return session.scalar(statement.where(whose)) or 0


def blind_counts(
    session: Session, identity: str, user_id: int | None = None
) -> Sequence[BlindCount]:
    """Blind comparisons answered, by user, by the version that made them and by outcome.

    Of everybody, or of one user.
    """
    ours = aliased(Response)
    outcome = case(
        (Choice.verdict == func.lower(ours.side), "won"),
        (Choice.verdict.in_(PAIR_VERDICTS), "lost"),
        else_=Choice.verdict,
    ).label("outcome")
    fitted = or_(ours.profile != "", ours.drafts > 1).label("fitted")
    statement = (
        select(Choice.user_id, ours.version_id, fitted, outcome, func.count(Choice.id))
        .join(Comparison, Comparison.id == Choice.comparison_id)
        .join(ours, and_(ours.comparison_id == Comparison.id, ours.condition == "personal"))
        .join(Version, Version.id == ours.version_id)
        .where(Comparison.purpose == "blind", Choice.verdict.in_(COUNTED), effective())
        .where(~repeated(), _still_blind(), ~_written_again())
        .where(Version.base_identity == identity)
        .group_by(Choice.user_id, ours.version_id, fitted, outcome)
    )
    if user_id is not None:
        statement = statement.where(Choice.user_id == user_id)
    return [BlindCount(*row) for row in session.execute(statement)]


def users_named(session: Session, ids: Collection[int]) -> Sequence[User]:
    """These users."""
    return session.scalars(select(User).where(User.id.in_(ids))).all()


def _written_again() -> ColumnElement[bool]:
    """True where an empty response was made once more: the win-rate is of first attempts."""
    return exists().where(Response.comparison_id == Choice.comparison_id, Response.attempts > 1)


def _still_blind() -> ColumnElement[bool]:
    """True for a choice whose verdict was there before the user was told which side was whose."""
    before = aliased(Choice)
    return or_(
        Comparison.revealed_at.is_(None),
        exists().where(
            before.comparison_id == Choice.comparison_id,
            before.verdict == Choice.verdict,
            before.created_at <= Comparison.revealed_at,
        ),
    )


def _unscored() -> tuple[ColumnElement[bool], ...]:
    return (
        Choice.verdict.in_(PAIR_VERDICTS),
        effective(),
        ~repeated(),
        ~scored(),
        ~consumed(),
        ~trained_on(),  # with another verdict, since withdrawn: the model has seen the pair
    )


def _score_counts(
    session: Session,
    identity: str,
    groups: tuple[ColumnElement[Any] | Any, ...],
    *where: ColumnElement[bool],
) -> Sequence[ScoreCounts]:
    first, second = aliased(Response), aliased(Response)
    one_length = _one_length(first, second)
    margins = PrequentialScore
    statement: Select[Any] = (
        select(
            *groups,
            *_signs(personal_forecast()),
            *_signs(margins.generic_nats),
            *_signs(wrong_forecast()),
            *_signs(case((one_length, personal_forecast()))),
        )
        .join(Choice, Choice.id == margins.choice_id)
        .join(User, User.id == margins.user_id)
        .join(Version, Version.id == margins.version_id)
        .join(first, and_(first.comparison_id == Choice.comparison_id, first.side == "A"))
        .join(second, and_(second.comparison_id == Choice.comparison_id, second.side == "B"))
        .where(Version.base_identity == identity, stands(), *where)
        .group_by(*groups)
    )
    return [_counts(row, len(groups)) for row in session.execute(statement)]


def personal_forecast() -> ColumnElement[Any]:
    """What was expected of a choice, nats: by the user's earlier choices, else by the margin."""
    return _said(PrequentialScore.personal_taste_nats, PrequentialScore.personal_nats)


def wrong_forecast() -> ColumnElement[Any]:
    """The same by the other user's choices and vector."""
    return _said(PrequentialScore.wrong_taste_nats, PrequentialScore.wrong_nats)


def _said(taste: ColumnElement[Any] | Any, margin: ColumnElement[Any] | Any) -> ColumnElement[Any]:
    return func.coalesce(func.nullif(taste, 0), margin)


def _signs(margin: ColumnElement[Any] | Any) -> tuple[ColumnElement[Any], ...]:
    """How many margins are above, at and below 0; none counts where there is no margin."""
    return tuple(
        func.sum(case((condition, 1), else_=0))
        for condition in (margin > 0, margin == 0, margin < 0)
    )


def _counts(row: Row[Any], groups: int) -> ScoreCounts:
    numbers = [int(number) for number in row[groups:]]
    personal, generic, wrong, matched = (
        Count(*numbers[start : start + 3]) for start in range(0, 12, 3)
    )
    return ScoreCounts(
        group=tuple(row[:groups]),
        personal=personal,
        generic=generic,
        wrong=wrong,
        matched=matched,
    )


def _one_length(first: type[Response], second: type[Response]) -> ColumnElement[bool]:
    a, b = func.json_array_length(first.token_ids), func.json_array_length(second.token_ids)
    longer = case((a > b, a), else_=b)
    return or_(a == b, func.abs(a - b) <= longer * LENGTH_TOLERANCE)


def stands() -> ColumnElement[bool]:
    """True for a scored choice whose verdict is the one that stands on its comparison."""
    last = aliased(Choice)
    later = aliased(Choice)
    return exists().where(
        last.comparison_id == Choice.comparison_id,
        last.verdict == Choice.verdict,
        ~exists().where(later.supersedes_id == last.id),
    )
