"""SQL for rounds, versions, promotions and the trainer's lease. Takes a Session, never commits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased, selectinload

from db.models import (
    Choice,
    Comparison,
    PrequentialScore,
    Promotion,
    Response,
    Round,
    RoundPair,
    TrainerLease,
    User,
    Version,
)
from db.queries.comparisons import (
    COUNTED,
    PAIR_VERDICTS,
    effective,
    judged_texts,
    learnable,
    repeated,
)
from db.queries.users import erased

_CONSUMING = ("new", "held_out", "no_pair")


def consumed() -> ColumnElement[bool]:
    """True for a choice whose verdict on its comparison a promoted full round has used.

    A vector round consumes nothing: what it learnt from waits for the adapter to learn from it.
    By comparison and verdict, not by choice: adding a reason later makes a new row, and must not
    count the same verdict twice.
    """
    used = aliased(Choice)
    return exists().where(
        and_(
            used.comparison_id == Choice.comparison_id,
            used.verdict == Choice.verdict,
            RoundPair.choice_id == used.id,
            RoundPair.use.in_(_CONSUMING),
            Round.id == RoundPair.round_id,
            Round.kind == "full",
            Round.status == "promoted",
        )
    )


def scored() -> ColumnElement[bool]:
    """True for a choice whose verdict on its comparison has a prequential score."""
    same = aliased(Choice)
    return exists().where(
        and_(
            same.comparison_id == Choice.comparison_id,
            same.verdict == Choice.verdict,
            PrequentialScore.choice_id == same.id,
        )
    )


def trained_on() -> ColumnElement[bool]:
    """True for a choice on a comparison that a promoted round has trained on, however judged."""
    used = aliased(Choice)
    return exists().where(
        and_(
            used.comparison_id == Choice.comparison_id,
            RoundPair.choice_id == used.id,
            RoundPair.use.in_(("new", "replay")),
            Round.id == RoundPair.round_id,
            Round.status == "promoted",
        )
    )


def _may_be_used(unscored_until: datetime) -> ColumnElement[bool]:
    """True for a choice that needs no prequential score, has one, or has waited long enough."""
    return or_(
        Choice.verdict.not_in(PAIR_VERDICTS),
        repeated(),
        Choice.created_at <= unscored_until,
        scored(),
        trained_on(),
    )


def made_with(identity: str) -> ColumnElement[bool]:
    """True for a choice on responses of this base model: other models' tokens are not its own."""
    return exists().where(
        Response.comparison_id == Choice.comparison_id,
        Version.id == Response.version_id,
        Version.base_identity == identity,
    )


def waiting_choices(
    session: Session, identity: str, unscored_until: datetime | None = None
) -> Sequence[tuple[Choice, str]]:
    """Every effective choice no promoted full round has used, with its purpose, oldest first.

    A repeat's purpose is `repeat`, whatever the first one was made for.

    Args:
        identity: the base model that made the responses.
        unscored_until: leave out pairs chosen later than this that have no prequential score yet.
    """
    statement = (
        select(Choice, case((repeated(), "repeat"), else_=Comparison.purpose))
        .join(Comparison, Comparison.id == Choice.comparison_id)
        .where(Choice.verdict.in_(COUNTED), effective(), ~consumed(), made_with(identity))
        .order_by(Choice.id)
    )
    if unscored_until is not None:
        statement = statement.where(_may_be_used(unscored_until))
    return [(choice, purpose) for choice, purpose in session.execute(statement)]


def count_waiting(session: Session, identity: str) -> int:
    """How many effective choices on this base model's responses no promoted full round has used."""
    statement = select(func.count(Choice.id)).where(
        Choice.verdict.in_(COUNTED), effective(), ~consumed(), made_with(identity)
    )
    return session.scalar(statement) or 0


def teaches(session: Session, identity: str) -> bool:
    """Whether a pair waits that a round may learn from: no tie, not blind, no repeat."""
    statement = (
        select(Choice.id)
        .join(Comparison, Comparison.id == Choice.comparison_id)
        .where(*learnable(), ~consumed(), made_with(identity))
        .limit(1)
    )
    return session.scalar(statement) is not None


def held_out_choices(
    session: Session,
    identity: str,
    limit: int,
    unscored_until: datetime,
    users: Collection[int] | None = None,
) -> Sequence[Choice]:
    """Newest effective a/b choices on blind comparisons.

    Args:
        identity: the base model that made the responses.
        unscored_until: leave out those chosen later that have no prequential score yet.
        users: only theirs; None: everybody's.
    """
    ready = or_(consumed(), _may_be_used(unscored_until))
    statement = _effective_pairs(identity).where(Comparison.purpose == "blind", ready)
    if users is not None:
        statement = statement.where(Choice.user_id.in_(users))
    return session.scalars(statement.order_by(Choice.id.desc()).limit(limit)).all()


def replayable_choices(session: Session, identity: str, limit: int) -> Sequence[Choice]:
    """Newest effective a/b choices on this base model's responses that were trained on."""
    statement = _effective_pairs(identity).where(Comparison.purpose != "blind", consumed())
    return session.scalars(statement.order_by(Choice.id.desc()).limit(limit)).all()


def usable_judged_texts(
    session: Session, user_id: int, unscored_until: datetime
) -> list[tuple[str, str]]:
    """(text preferred, text passed over) of the user's choices that a round may learn from.

    Whichever base model wrote them: texts are the same to all.

    Args:
        unscored_until: leave out those chosen later that have no prequential score yet.
    """
    return judged_texts(session, user_id, or_(consumed(), _may_be_used(unscored_until)))


def _effective_pairs(identity: str) -> Select[Choice]:
    return (
        select(Choice)
        .join(Comparison, Comparison.id == Choice.comparison_id)
        .where(Choice.verdict.in_(PAIR_VERDICTS), effective(), ~repeated(), made_with(identity))
    )


def comparisons_by_id(session: Session, ids: Sequence[int]) -> dict[int, Comparison]:
    """Comparisons with prompt and responses, by id."""
    rows = session.scalars(
        select(Comparison)
        .where(Comparison.id.in_(ids))
        .options(selectinload(Comparison.prompt), selectinload(Comparison.responses))
    )
    return {row.id: row for row in rows}


def choices_by_id(session: Session, ids: Sequence[int]) -> dict[int, Choice]:
    """Choices by id."""
    return {row.id: row for row in session.scalars(select(Choice).where(Choice.id.in_(ids)))}


def last_trained_at(session: Session, identity: str) -> dict[int, datetime]:
    """User id → end of the last promoted full round of this base model that trained on theirs."""
    statement = (
        select(Choice.user_id, func.max(Round.ended_at))
        .join(RoundPair, RoundPair.choice_id == Choice.id)
        .join(Round, Round.id == RoundPair.round_id)
        .where(Round.status == "promoted", Round.kind == "full")
        .where(RoundPair.use.in_(("new", "replay")), made_with(identity))
        .group_by(Choice.user_id)
    )
    return {user_id: at for user_id, at in session.execute(statement) if at is not None}


def vector_served(session: Session, identity: str) -> set[int]:
    """Users for whom no vector round of this base model is wanted.

    Those a promoted full round has trained, and those who have had a vector round since the last of
    these, promoted or refused: the same choices would be refused again.
    """
    last_full = select(func.coalesce(func.max(Round.id), 0)).where(
        Round.status == "promoted", Round.kind == "full"
    )
    tried = (
        select(Choice.user_id)
        .join(RoundPair, RoundPair.choice_id == Choice.id)
        .join(Round, Round.id == RoundPair.round_id)
        .where(Round.kind == "vector", Round.status.in_(("promoted", "refused")))
        .where(Round.id > last_full.scalar_subquery(), RoundPair.use == "new")
        .where(made_with(identity))
    )
    return {*last_trained_at(session, identity), *session.scalars(tried)}


def live_version(
    session: Session, base_identity: str, excluding: Collection[int] = ()
) -> Version | None:
    """The newest promoted, undamaged version that belongs to this base model."""
    statement = (
        select(Version)
        .join(Promotion, Promotion.version_id == Version.id)
        .where(Version.base_identity == base_identity, Version.damaged_at.is_(None))
        .where(Version.id.not_in(excluding))
        .order_by(Promotion.id.desc())
        .limit(1)
    )
    return session.scalars(statement).first()


def versions(session: Session) -> Sequence[tuple[Version, int]]:
    """Every version, newest first, with the number of responses it made."""
    made = (
        select(func.count(Response.id)).where(Response.version_id == Version.id).scalar_subquery()
    )
    statement = select(Version, made).order_by(Version.id.desc())
    return [(version, count) for version, count in session.execute(statement)]


def recent_rounds(session: Session, limit: int) -> Sequence[Round]:
    """The newest rounds with their pairs, newest first."""
    return session.scalars(
        select(Round).options(selectinload(Round.pairs)).order_by(Round.id.desc()).limit(limit)
    ).all()


def running_round(session: Session) -> Round | None:
    """The round under way, if any."""
    return session.scalars(select(Round).where(Round.status == "running")).first()


def newest(session: Session) -> tuple[int | None, int | None, str | None]:
    """The newest choice, the newest round and its status: when they change, so may all counts."""
    last = select(Round.id, Round.status).order_by(Round.id.desc()).limit(1)
    number, status = session.execute(last).one_or_none() or (None, None)
    return session.scalar(select(func.max(Choice.id))), number, status


def failures_since_success(session: Session, kind: str) -> tuple[int, datetime | None]:
    """How many rounds of a kind failed or were refused since it last succeeded, and when."""
    last_good = select(func.coalesce(func.max(Round.id), 0)).where(
        Round.status == "promoted", Round.kind == kind
    )
    statement = select(func.count(Round.id), func.max(Round.ended_at)).where(
        Round.id > last_good.scalar_subquery(),
        Round.status.in_(("failed", "refused")),
        Round.kind == kind,
    )
    count, ended_at = session.execute(statement).one()
    return count, ended_at


def lease(session: Session) -> TrainerLease | None:
    """The lease row as it stands."""
    return session.scalars(select(TrainerLease)).first()


def lock_lease(session: Session) -> TrainerLease | None:
    """The lease row, locked until the transaction ends."""
    return session.scalars(select(TrainerLease).with_for_update()).first()


def fail_running(session: Session, before_epoch: int, reason: str, at: datetime) -> int:
    """Mark rounds of earlier leases that never ended as failed; returns how many."""
    result = session.execute(
        update(Round)
        .where(Round.status == "running", Round.lease_epoch < before_epoch)
        .values(status="failed", reason=reason, ended_at=at, progress=None),
        execution_options={"synchronize_session": False},
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def users_with_counts(session: Session) -> Sequence[tuple[User, int, int, datetime | None]]:
    """Every user: how many choices stand, how many are consumed, and the time of the last one."""
    mine = (Choice.user_id == User.id, Choice.verdict.in_(COUNTED), effective())
    count = select(func.count(Choice.id)).where(*mine).scalar_subquery()
    used = select(func.count(Choice.id)).where(*mine, consumed()).scalar_subquery()
    last = select(func.max(Choice.created_at)).where(*mine).scalar_subquery()
    statement = select(User, count, used, last).where(~erased()).order_by(count.desc(), User.id)
    return [(user, n, m, at) for user, n, m, at in session.execute(statement)]
