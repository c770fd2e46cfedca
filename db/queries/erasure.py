"""SQL that takes one person out of the record. Takes a Session, never commits.

The row of the user stays, without a name: a database may give the number of a deleted row to
somebody new, who would then inherit the vector that older files keep under that number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from db.models import (
    Choice,
    Comparison,
    PrequentialScore,
    Prompt,
    Response,
    Round,
    RoundPair,
    UnwantedPrompt,
    User,
    Version,
    WebSession,
)
from db.queries.users import ERASED, erased

_UNSEEN = {"synchronize_session": False}


def erase_rows(session: Session, user_id: int) -> None:
    """Delete everything this user gave and everything made from it."""
    pairs = select(Comparison.id).where(Comparison.user_id == user_id)
    choices = select(Choice.id).where(Choice.user_id == user_id)
    for statement in (
        delete(PrequentialScore).where(PrequentialScore.user_id == user_id),
        delete(RoundPair).where(RoundPair.choice_id.in_(choices)),
        # One statement each: choices point to choices and comparisons to comparisons.
        delete(Choice).where(Choice.user_id == user_id),
        delete(Response).where(Response.comparison_id.in_(pairs)),
        delete(Comparison).where(Comparison.user_id == user_id),
        delete(UnwantedPrompt).where(UnwantedPrompt.user_id == user_id),
        delete(Prompt).where(Prompt.owner_id == user_id),
        delete(WebSession).where(WebSession.user_id == user_id),
    ):
        session.execute(statement, execution_options=_UNSEEN)


def erase_samples(session: Session, user_id: int) -> None:
    """Delete texts that a round's gate let the model write in this user's taste."""
    judged = select(Round).where(Round.gate.is_not(None)).execution_options(yield_per=50)
    for row in session.scalars(judged):
        gate = row.gate or {}
        kept = without_samples(gate, {user_id})
        if len(kept["samples"]) < len(gate.get("samples", ())):
            row.gate = kept


def without_samples(gate: Mapping[str, Any], users: Collection[int]) -> dict[str, Any]:
    """A gate's verdict without the texts that the model wrote in these users' taste."""
    kept = [text for text in gate.get("samples", ()) if text.get("user_id") not in users]
    return {**gate, "samples": kept}


def make_nameless(user: User, at: datetime) -> None:
    """Leave nothing in the row but its number and that nobody can sign in."""
    user.username = user.username_key = f"{ERASED}{user.id}"
    user.password_hash = user.hf_subject = user.persona = user.liked_topics = None
    user.profile = user.language = ""
    user.role, user.is_guest, user.keys_off = "annotator", False, False
    user.consented_to = None
    user.introduced_at = user.consented_at = user.daily_goal = user.seen_at = None
    user.created_at = user.disabled_at = at


def erased_ids(session: Session) -> frozenset[int]:
    """Users who were erased."""
    gone = select(User.id).where(erased())
    return frozenset(session.scalars(gone))


def with_late_rows(session: Session) -> Sequence[int]:
    """Erased users for whom a pair was still stored afterwards."""
    late = or_(
        exists().where(Comparison.user_id == User.id), exists().where(Prompt.owner_id == User.id)
    )
    statement = select(User.id).where(erased(), late)
    return session.scalars(statement).all()


def artifact_names(session: Session) -> Sequence[str]:
    """Directories that versions and rounds name, newest first."""
    versions = session.scalars(select(Version.artifact).order_by(Version.id.desc())).all()
    rounds = session.scalars(
        select(Round.artifact).where(Round.artifact.is_not(None)).order_by(Round.id.desc())
    )
    return list(dict.fromkeys([*versions, *(name for name in rounds if name is not None)]))


def rename_artifact(session: Session, old: str, new: str, manifest_sha256: str) -> None:
    """Versions and rounds name another directory from now on."""
    session.execute(
        update(Version)
        .where(Version.artifact == old)
        .values(artifact=new, manifest_sha256=manifest_sha256),
        execution_options=_UNSEEN,
    )
    session.execute(
        update(Round).where(Round.artifact == old).values(artifact=new), execution_options=_UNSEEN
    )
