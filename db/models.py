"""The tables. Times are UTC; users are integers everywhere, names only here.

Append-only: choices, promotions. A choice is never changed; an edit is a row that supersedes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

ROLES = ("annotator", "researcher", "admin")
PURPOSES = ("learn", "blind", "base")
VERDICTS = ("a", "b", "tie", "both_bad", "skip", "withdrawn")
ROUND_STATES = ("running", "promoted", "refused", "failed")
# `no_pair`: a tie or both bad; counted towards a round, nothing to train on.
PAIR_USES = ("new", "replay", "held_out", "no_pair")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database (SQLite keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times must carry a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Declarative base: constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class User(Base):
    """A person with an account, or a labelled simulated one."""

    __tablename__ = "users"
    __table_args__ = (_one_of("role", ROLES),)

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(64), unique=True)  # casefolded
    password_hash: Mapped[str | None] = mapped_column(String(255))  # None: guest or OAuth
    role: Mapped[str] = mapped_column(String(16), default="annotator")
    is_guest: Mapped[bool] = mapped_column(default=False)
    is_simulated: Mapped[bool] = mapped_column(default=False)
    persona: Mapped[dict[str, Any] | None]  # rule, noise and side bias of a simulated user
    profile: Mapped[str] = mapped_column(Text, default="")  # what users wrote about themselves
    hf_subject: Mapped[str | None] = mapped_column(String(64), unique=True)
    introduced_at: Mapped[datetime | None]  # went through the introduction
    consented_at: Mapped[datetime | None]  # agreed to the study's text
    consented_to: Mapped[str | None] = mapped_column(String(64))  # that text's SHA-256
    daily_goal: Mapped[int | None]  # None: the setting's
    language: Mapped[str] = mapped_column(String(16), default="")  # empty: the browser's
    keys_off: Mapped[bool] = mapped_column(default=False)  # the compare page has no key shortcuts
    liked_topics: Mapped[list[Any] | None]  # prompts of these come more often
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class WebSession(Base):
    """A signed-in browser. Only the token's SHA-256 is kept."""

    __tablename__ = "web_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Invite(Base):
    """A one-time link that makes an account of a role. Only the token's SHA-256 is kept."""

    __tablename__ = "invites"
    __table_args__ = (_one_of("role", ROLES),)

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # None: the program
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))


class LoginFailure(Base):
    """A wrong password, counted per account name and per address (both hashed)."""

    __tablename__ = "login_failures"
    __table_args__ = (Index("ix_login_failures_key_at", "key", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class Prompt(Base):
    """What the model is asked: an entry of the bank (no owner) or a user's own text."""

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    topic: Mapped[str] = mapped_column(String(64))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    bank_key: Mapped[str | None] = mapped_column(String(64), unique=True)  # sha256 of shipped text
    active: Mapped[bool] = mapped_column(default=True)
    earlier: Mapped[list[Any] | None]  # the messages before this one, as the user saw them
    created_at: Mapped[datetime]


class UnwantedPrompt(Base):
    """A prompt this user never wants again."""

    __tablename__ = "unwanted_prompts"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True, index=True)
    created_at: Mapped[datetime]


class Comparison(Base):
    """Two responses to one prompt, issued to one user, sides fixed before display."""

    __tablename__ = "comparisons"
    __table_args__ = (
        _one_of("purpose", PURPOSES),
        Index("ix_comparisons_user_open", "user_id", "retired_at", "shown_at"),
        # Has this user been issued that prompt? Asked of every prompt of the bank.
        Index("ix_comparisons_prompt_user", "prompt_id", "user_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    purpose: Mapped[str] = mapped_column(String(16))
    # The same responses once more, sides swapped: is a choice steady? Never learnt from.
    repeat_of_id: Mapped[int | None] = mapped_column(ForeignKey("comparisons.id"), index=True)
    # The one whose chosen response this conversation goes on from.
    continues_id: Mapped[int | None] = mapped_column(ForeignKey("comparisons.id"), index=True)
    created_at: Mapped[datetime]
    shown_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]  # never shown, replaced by one of another version
    stopped_at: Mapped[datetime | None]  # the user ended the writing; texts as far as written
    revealed_at: Mapped[datetime | None]  # the user was told which side was whose

    prompt: Mapped[Prompt] = relationship(lazy="raise")
    responses: Mapped[list[Response]] = relationship(
        lazy="raise", order_by="Response.side", back_populates="comparison"
    )


class Response(Base):
    """One generated answer, with everything that made it."""

    __tablename__ = "responses"
    __table_args__ = (
        UniqueConstraint("comparison_id", "side"),
        _one_of("side", ("A", "B")),
        _one_of("condition", ("personal", "generic", "base")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"))
    side: Mapped[str] = mapped_column(String(1))
    condition: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=1)  # more: it was empty and written again
    drafts: Mapped[int] = mapped_column(default=1)  # it is the one of so many that suited best
    style: Mapped[str | None] = mapped_column(String(32))  # the style it was made in
    profile: Mapped[str] = mapped_column(Text, default="")  # the user's, as it stood in the prompt
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)
    text: Mapped[str] = mapped_column(Text)
    token_ids: Mapped[list[Any]]
    ended: Mapped[bool]
    seed: Mapped[int] = mapped_column(BigInteger)
    temperature: Mapped[float]
    top_p: Mapped[float]
    max_new_tokens: Mapped[int]
    seconds: Mapped[float]
    reference_logp_nats: Mapped[float | None]  # log π_ref(y|x), summed
    reference_identity: Mapped[str | None] = mapped_column(String(64))  # base model it belongs to

    comparison: Mapped[Comparison] = relationship(lazy="raise", back_populates="responses")


class Choice(Base):
    """A user's verdict. The effective choice of a comparison is the one nobody supersedes."""

    __tablename__ = "choices"
    __table_args__ = (
        _one_of("verdict", VERDICTS),
        CheckConstraint("strength IS NULL OR strength IN (1, 2)", name="strength"),
        # One first choice per comparison, one successor per choice: a double click, a replay
        # and a race all end in a constraint error, never in two choices.
        Index(
            "uq_choices_first",
            "comparison_id",
            unique=True,
            sqlite_where=text("supersedes_id IS NULL"),
            postgresql_where=text("supersedes_id IS NULL"),
        ),
        Index("ix_choices_user_at", "user_id", "created_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    verdict: Mapped[str] = mapped_column(String(16))
    strength: Mapped[int | None]  # 1 slightly, 2 clearly
    reason: Mapped[str | None] = mapped_column(Text)
    decided_ms: Mapped[int | None]  # from shown to chosen
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("choices.id"), unique=True)
    created_at: Mapped[datetime]


class PrequentialScore(Base):
    """One choice, scored by the live version before any round trained on it.

    A margin is h of arXiv 2402.05133: how much further, in nats, the chosen response has moved away
    from the base model than the rejected one; above 0 the choice was foreseen. A taste model made
    from earlier choices says more: where there is one, its log-odds stand for the margin
    (`personal_forecast`, `wrong_forecast`). One row per choice.
    """

    __tablename__ = "prequential_scores"

    choice_id: Mapped[int] = mapped_column(ForeignKey("choices.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    nth: Mapped[int]  # how many pairs this user had judged before
    personal_nats: Mapped[float]
    generic_nats: Mapped[float]
    wrong_nats: Mapped[float | None]  # under another user's vector; None while there is none
    # What earlier choices said, the user's own and the other user's; None where there were none.
    personal_taste_nats: Mapped[float | None]
    wrong_taste_nats: Mapped[float | None]
    wrong_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    scored_at: Mapped[datetime]


class Round(Base):
    """One run of the trainer."""

    __tablename__ = "rounds"
    __table_args__ = (_one_of("status", ROUND_STATES),)

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(16), index=True)
    kind: Mapped[str] = mapped_column(String(16), default="full")  # or `vector`: one user's alone
    lease_epoch: Mapped[int]
    parent_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    config: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any] | None]
    curve: Mapped[list[Any] | None]
    gate: Mapped[dict[str, Any] | None]
    artifact: Mapped[str | None] = mapped_column(String(255))  # directory name under versions/
    reason: Mapped[str | None] = mapped_column(Text)  # why it failed or was refused
    train_s: Mapped[float | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    pairs: Mapped[list[RoundPair]] = relationship(lazy="raise")


class RoundPair(Base):
    """Which choice a round used, and for what. Replay apart, a promoted full round consumes it."""

    __tablename__ = "round_pairs"
    __table_args__ = (_one_of("use", PAIR_USES),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    choice_id: Mapped[int] = mapped_column(ForeignKey("choices.id"), primary_key=True, index=True)
    use: Mapped[str] = mapped_column(String(16))


class Version(Base):
    """A promoted round (or the initial state): one adapter and the user vectors with it."""

    __tablename__ = "versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    # use_alter: rounds point to versions too, so one of the two constraints is added afterwards.
    round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", use_alter=True), unique=True
    )
    artifact: Mapped[str] = mapped_column(String(255))  # directory name under versions/
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    base_identity: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    damaged_at: Mapped[datetime | None]  # refused by a load; never served again


class Promotion(Base):
    """When a version went live. The newest row of an undamaged version is the live one."""

    __tablename__ = "promotions"
    __table_args__ = (_one_of("cause", ("initial", "round", "rollback")),)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)
    cause: Mapped[str] = mapped_column(String(16))
    by_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    at: Mapped[datetime]


class TrainerLease(Base):
    """The right to train: one row, taken over by whoever finds it expired."""

    __tablename__ = "trainer_lease"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]  # somebody wants a round now
