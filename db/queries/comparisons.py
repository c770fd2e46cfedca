"""SQL for prompts, comparisons and choices. Takes a Session, never commits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased, selectinload

from db.models import Choice, Comparison, Prompt, Response, UnwantedPrompt

# Verdicts that count as a choice; `skip` says nothing, `withdrawn` takes one back.
COUNTED = ("a", "b", "tie", "both_bad")
PAIR_VERDICTS = ("a", "b")
_NEWEST = 500  # choices that a taste is read from; tastes change, and reading takes time


@cache
def effective() -> ColumnElement[bool]:
    """True for a choice that no other choice supersedes; built once, as an alias takes a while."""
    later = aliased(Choice)
    return ~exists().where(later.supersedes_id == Choice.id)


def _answered() -> ColumnElement[bool]:
    """True for a comparison whose effective choice stands."""
    return exists().where(
        and_(Choice.comparison_id == Comparison.id, Choice.verdict != "withdrawn", effective())
    )


def unwanted(user_id: int) -> ColumnElement[bool]:
    """True for a prompt this user never wants again."""
    return exists().where(UnwantedPrompt.user_id == user_id, UnwantedPrompt.prompt_id == Prompt.id)


def _made_by(version_id: int) -> ColumnElement[bool]:
    """True for a comparison whose responses this version made."""
    # Both sides have one version, so side A says it. Without the side SQLite takes the index over
    # versions, and goes through all that the version ever made, once for each comparison.
    return exists().where(
        Response.comparison_id == Comparison.id,
        Response.side == "A",
        Response.version_id == version_id,
    )


def _current(version_id: int) -> ColumnElement[bool]:
    """True for a pair of this version, and for a repeat: its responses are what they are."""
    return or_(_made_by(version_id), Comparison.repeat_of_id.is_not(None))


def _waiting(user_id: int) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a comparison made for this user ahead of time and not shown yet."""
    return (
        Comparison.user_id == user_id,
        Comparison.shown_at.is_(None),
        Comparison.retired_at.is_(None),
    )


def repeated() -> ColumnElement[bool]:
    """True for a choice on a repeat of an earlier comparison: nothing may learn from it."""
    repeats = select(Comparison.id).where(Comparison.repeat_of_id.is_not(None))
    return Choice.comparison_id.in_(repeats)


def learnable() -> tuple[ColumnElement[bool], ...]:
    """Conditions of a choice, and its comparison, that a round and a taste may learn from."""
    return (
        Choice.verdict.in_(PAIR_VERDICTS),
        Comparison.purpose != "blind",
        ~repeated(),
        effective(),
    )


def _whole(statement: Select[Comparison]) -> Select[Comparison]:
    return statement.options(selectinload(Comparison.prompt), selectinload(Comparison.responses))


def open_comparison(session: Session, user_id: int) -> Comparison | None:
    """The unanswered comparison this user saw last, else None."""
    latest = (
        select(Comparison)
        .where(Comparison.user_id == user_id, Comparison.shown_at.is_not(None), ~_answered())
        .order_by(Comparison.shown_at.desc(), Comparison.id.desc())
        .limit(1)
    )
    return session.scalars(_whole(latest)).first()


def next_prefetched(session: Session, user_id: int) -> Comparison | None:
    """The newest comparison made for this user and never shown."""
    newest = select(Comparison).where(*_waiting(user_id)).order_by(Comparison.id.desc()).limit(1)
    return session.scalars(_whole(newest)).first()


def count_prefetched(session: Session, user_id: int, version_id: int) -> int:
    """How many never-shown comparisons of this version, or repeats, wait for the user."""
    statement = select(func.count(Comparison.id)).where(*_waiting(user_id), _current(version_id))
    return session.scalar(statement) or 0


def retire_prefetched(session: Session, user_id: int, version_id: int, at: datetime) -> None:
    """Put away never-shown comparisons of other versions than `version_id`, but no repeats."""
    session.execute(
        update(Comparison).where(*_waiting(user_id), ~_current(version_id)).values(retired_at=at),
        execution_options={"synchronize_session": False},
    )


def comparison_of(session: Session, user_id: int, comparison_id: int) -> Comparison | None:
    """The comparison, if it was issued to this user."""
    statement = select(Comparison).where(
        Comparison.id == comparison_id, Comparison.user_id == user_id
    )
    return session.scalars(_whole(statement)).first()


def effective_choice(session: Session, comparison_id: int) -> Choice | None:
    """The choice that stands for a comparison, `withdrawn` ones included."""
    return session.scalars(
        select(Choice).where(Choice.comparison_id == comparison_id, effective())
    ).first()


def last_standing_choice(session: Session, user_id: int) -> Choice | None:
    """This user's newest effective choice that has not been withdrawn."""
    return session.scalars(
        select(Choice)
        .where(Choice.user_id == user_id, Choice.verdict != "withdrawn", effective())
        .order_by(Choice.id.desc())
        .limit(1)
    ).first()


def choice_of(session: Session, user_id: int, choice_id: int) -> Choice | None:
    """The choice, if this user made it."""
    return session.scalars(
        select(Choice).where(Choice.id == choice_id, Choice.user_id == user_id)
    ).first()


def count_choices(session: Session, user_id: int) -> int:
    """How many choices of this user stand (skips not counted)."""
    statement = select(func.count(Choice.id)).where(
        Choice.user_id == user_id, Choice.verdict.in_(COUNTED), effective()
    )
    return session.scalar(statement) or 0


def count_comparisons(session: Session, user_id: int) -> int:
    """Comparisons ever made for this user."""
    statement = select(func.count()).select_from(Comparison).where(Comparison.user_id == user_id)
    return session.scalar(statement) or 0


def shared_comparison(
    session: Session, user_id: int, version_id: int, under_way: Collection[int] = ()
) -> Comparison | None:
    """The oldest pair this version made under e₀, in two styles, on a prompt still asked.

    New to this user, not `under_way`, and not refused in another wording.
    """
    own = aliased(Comparison)
    personal = exists().where(
        Response.comparison_id == Comparison.id,
        or_(
            Response.condition != "generic",
            Response.style.is_(None),
            Response.version_id != version_id,
        ),
    )
    oldest = (
        select(Comparison)
        .join(Prompt, Prompt.id == Comparison.prompt_id)
        .where(
            Comparison.purpose == "learn",
            Prompt.owner_id.is_(None),
            Prompt.active,
            ~unwanted(user_id),
            Comparison.repeat_of_id.is_(None),
            Comparison.stopped_at.is_(None),
            _made_by(version_id),
            ~personal,
            ~exists().where(own.user_id == user_id, own.prompt_id == Comparison.prompt_id),
            Comparison.prompt_id.not_in(under_way),
        )
        .order_by(Comparison.id)
        .limit(1)
    )
    return session.scalars(_whole(oldest)).first()


def judged_texts(
    session: Session, user_id: int, *further: ColumnElement[bool]
) -> list[tuple[str, str]]:
    """(text preferred, text passed over) of this user's newest standing choices, oldest first.

    Args:
        further: conditions on the choice.
    """
    preferred, other = aliased(Response), aliased(Response)
    statement = (
        select(preferred.text, other.text)
        .select_from(Choice)
        .join(Comparison, Comparison.id == Choice.comparison_id)
        .join(
            preferred,
            and_(
                preferred.comparison_id == Choice.comparison_id,
                func.lower(preferred.side) == Choice.verdict,
            ),
        )
        .join(
            other,
            and_(other.comparison_id == Choice.comparison_id, other.side != preferred.side),
        )
        .where(Choice.user_id == user_id, *learnable(), *further)
        .order_by(Choice.id.desc())
        .limit(_NEWEST)
    )
    return [(mine, passed) for mine, passed in session.execute(statement)][::-1]


def made_before(choice_id: int) -> ColumnElement[bool]:
    """True for choices older than this one: identifiers only grow."""
    return Choice.id < choice_id


def fresh_prompt_ids(session: Session, user_id: int, topics: Collection[str] = ()) -> Sequence[int]:
    """Bank prompts this user has not been issued yet; of these topics if any are named."""
    issued = exists().where(Comparison.prompt_id == Prompt.id, Comparison.user_id == user_id)
    statement = select(Prompt.id).where(
        Prompt.owner_id.is_(None), Prompt.active, ~issued, ~unwanted(user_id)
    )
    if topics:
        statement = statement.where(Prompt.topic.in_(topics))
    return session.scalars(statement.order_by(Prompt.id)).all()


def stalest_prompt_ids(session: Session, user_id: int, limit: int) -> Sequence[int]:
    """Bank prompts this user was issued longest ago."""
    statement = (
        select(Prompt.id)
        .join(Comparison, Comparison.prompt_id == Prompt.id)
        .where(Prompt.owner_id.is_(None), Prompt.active, Comparison.user_id == user_id)
        .where(~unwanted(user_id))
        .group_by(Prompt.id)
        .order_by(func.max(Comparison.id))
        .limit(limit)
    )
    return session.scalars(statement).all()


def probe_prompts(session: Session, limit: int) -> Sequence[Prompt]:
    """Bank prompts for the gate's generated texts: always the first one of each topic."""
    firsts = select(func.min(Prompt.id)).where(Prompt.owner_id.is_(None), Prompt.active)
    statement = select(Prompt).where(Prompt.id.in_(firsts.group_by(Prompt.topic)))
    return session.scalars(statement.order_by(Prompt.id).limit(limit)).all()
