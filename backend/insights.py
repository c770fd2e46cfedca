"""Read models for the pages: frozen records, plain values, no ORM rows.

What is the same for all viewers is kept for a moment. Knows nothing of pages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from backend.confidence import Tally
from backend.errors import NotFound
from backend.evidence import Figure
from backend.wording import Counted, Sentence, msg
from db.models import Round, Version
from db.queries import comparisons as comparison_queries
from db.queries import desk as desk_queries
from db.queries import rounds as queries
from db.session import Database

_SNAPSHOT_S = 2.0
_ROUNDS_SHOWN = 50
_SWAPPED = {"a": "b", "b": "a"}
_LEARNING = msg("learning now")
_IN_A_MOMENT = msg("learns in a moment")
_TRIES_AGAIN = msg("tries again later")
_LEARNS_IN = Counted("learns again in {count}", "learns again in {count}")


@dataclass(frozen=True, slots=True)
class Chip:
    """The status line of the compare page.

    Attributes:
        choices: this user's choices that stand.
        until_next: what the next update waits for, in words.
    """

    version: int
    choices: int
    until_next: Sentence
    training: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    """One round in the lab's table; `progress` is empty unless it is running.

    `kind` is `full`, or `vector` for new users' vectors alone. The losses are the gate's: of some
    of the round's pairs under their users' vectors, the same pairs before and after. The accuracy
    is a mean over the last third of the steps: one has a few pairs, and alone it says nothing.
    """

    id: int
    kind: str
    status: str
    started_at: datetime
    seconds: float | None
    new_pairs: int
    replay_pairs: int
    held_out_pairs: int
    loss_before: float | None
    loss_after: float | None
    accuracy_last: float | None
    reason: str
    progress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One version; `responses` counts those it made."""

    id: int
    round_id: int | None
    created_at: datetime
    live: bool
    damaged: bool
    responses: int


@dataclass(frozen=True, slots=True)
class Consistency:
    """How often a user chose the same when an earlier pair came back with its sides swapped.

    Attributes:
        same: share of repeats judged as before.
        same_side: among the others, those where the same side was preferred both times.
    """

    same: Figure
    same_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """One user's choices; `consumed`: by promoted full rounds, `steady`: by repeats."""

    id: int
    username: str
    role: str
    simulated: bool
    guest: bool
    choices: int
    consumed: int
    last_choice_at: datetime | None
    steady: Consistency


@dataclass(frozen=True, slots=True)
class LabSnapshot:
    """Everything the lab's tables show, at one moment."""

    live_version: int | None
    rounds: tuple[RoundRow, ...]
    versions: tuple[VersionRow, ...]
    users: tuple[UserRow, ...]


@dataclass(frozen=True, slots=True)
class GateView:
    """The gate's verdict on one round."""

    passed: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, float]
    samples: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Everybodys:
    """What every chip says: `waiting` choices, whether a pair among them `teaches`, the rounds."""

    waiting: int
    teaches: bool
    training: bool
    failures: int


class Insights:
    """What the pages may read."""

    def __init__(
        self,
        database: Database,
        *,
        identity: str,
        live_version: Callable[[], int],
        min_choices: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._identity = identity
        self._live_version = live_version
        self._min_choices = min_choices
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._snapshot: tuple[float, LabSnapshot] | None = None
        self._counting = threading.Lock()
        self._counted: tuple[float, object, _Everybodys] | None = None

    def chip(self, user_id: int) -> Chip:
        """The status line for this user."""
        with self._database.read() as session:
            choices = comparison_queries.count_choices(session, user_id)
            everybodys = self._everybodys(session)
        missing = max(self._min_choices - everybodys.waiting, 0 if everybodys.teaches else 1)
        if everybodys.training:
            until_next = Sentence(_LEARNING)
        elif missing:
            until_next = Sentence(_LEARNS_IN, {"count": missing})
        else:
            until_next = Sentence(_TRIES_AGAIN if everybodys.failures else _IN_A_MOMENT)
        return Chip(self._live_version(), choices, until_next, everybodys.training)

    def _everybodys(self, session: Session) -> _Everybodys:
        """Counted again when somebody has chosen or a round has gone on, and after a moment.

        That is for what the mark does not show: erasing, and commits out of turn.
        """
        with self._counting:
            now, mark = self._monotonic(), queries.newest(session)
            known = self._counted
            if known is None or known[1] != mark or now - known[0] > _SNAPSHOT_S:
                known = self._counted = (now, mark, self._count(session))
            return known[2]

    def _count(self, session: Session) -> _Everybodys:
        return _Everybodys(
            waiting=queries.count_waiting(session, self._identity),
            teaches=queries.teaches(session, self._identity),
            training=queries.running_round(session) is not None,
            failures=queries.failures_since_success(session, "full")[0],
        )

    def consistency(self, user_id: int) -> Consistency:
        """How steady this user's choices are, by the repeats among them."""
        with self._database.read() as session:
            twice = desk_queries.judged_twice(session, user_id)
        return _consistency(twice)

    def lab(self) -> LabSnapshot:
        """Tables of the lab, at most a moment old."""
        with self._lock:
            now = self._monotonic()
            if self._snapshot is None or now - self._snapshot[0] > _SNAPSHOT_S:
                self._snapshot = (now, self._read_lab())
            return self._snapshot[1]

    def curve(self, round_id: int) -> tuple[Mapping[str, float], ...]:
        """One round's figures per optimizer step. Raises NotFound."""
        return tuple(self._round(round_id).curve or ())

    def gate(self, round_id: int) -> GateView | None:
        """The gate's verdict, None before it has judged. Raises NotFound."""
        gate = self._round(round_id).gate
        if gate is None:
            return None
        return GateView(
            gate["passed"], tuple(gate["reasons"]), gate["figures"], tuple(gate["samples"])
        )

    def _round(self, round_id: int) -> Round:
        with self._database.read() as session:
            row = session.get(Round, round_id)
        if row is None:
            raise NotFound(f"There is no round {round_id}.")
        return row

    def _read_lab(self) -> LabSnapshot:
        with self._database.read() as session:
            rounds = queries.recent_rounds(session, _ROUNDS_SHOWN)
            versions = queries.versions(session)
            users = queries.users_with_counts(session)
            live = queries.live_version(session, self._identity)
            twice = desk_queries.judged_twice(session)
        live_id = live.id if live is not None else None
        return LabSnapshot(
            live_version=live_id,
            rounds=tuple(_round_row(row) for row in rounds),
            versions=tuple(_version_row(version, made, live_id) for version, made in versions),
            users=tuple(
                UserRow(
                    id=user.id,
                    username=user.username,
                    role=user.role,
                    simulated=user.is_simulated,
                    guest=user.is_guest,
                    choices=choices,
                    consumed=consumed,
                    last_choice_at=last_at,
                    steady=_consistency(row for row in twice if row[0] == user.id),
                )
                for user, choices, consumed, last_at in users
            ),
        )


def _consistency(twice: Iterable[tuple[int, str, str]]) -> Consistency:
    pairs = [(first, then) for _, first, then in twice]
    same = sum(_SWAPPED.get(first, first) == then for first, then in pairs)
    same_side = sum(first == then and first in _SWAPPED for first, then in pairs)
    return Consistency(Figure(Tally(same, 0, len(pairs) - same)), same_side)


def _version_row(version: Version, responses: int, live_id: int | None) -> VersionRow:
    return VersionRow(
        id=version.id,
        round_id=version.round_id,
        created_at=version.created_at,
        live=version.id == live_id,
        damaged=version.damaged_at is not None,
        responses=responses,
    )


def _round_row(row: Round) -> RoundRow:
    curve = row.curve or []
    uses = [pair.use for pair in row.pairs]
    ended = row.ended_at
    third = -(-len(curve) // 3)
    figures = row.gate["figures"] if row.gate else {}
    return RoundRow(
        id=row.id,
        kind=row.kind,
        status=row.status,
        started_at=row.started_at,
        seconds=(ended - row.started_at).total_seconds() if ended else None,
        new_pairs=uses.count("new"),
        replay_pairs=uses.count("replay"),
        held_out_pairs=uses.count("held_out"),
        loss_before=figures.get("round_loss_parent"),
        loss_after=figures.get("round_loss"),
        accuracy_last=_mean(curve[-third:], "accuracy"),
        reason=row.reason or "",
        progress=_progress(row),
    )


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [step[name] for step in steps if name in step]
    return sum(values) / len(values) if values else None


def _progress(row: Round) -> str:
    if row.status != "running" or row.progress is None:
        return ""
    return f"{row.progress['phase']} {row.progress['step']}/{row.progress['steps']}"
