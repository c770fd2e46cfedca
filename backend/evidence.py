"""Is it personal? Read models: prequential accuracy and blind win-rate, per user, version, overall.

People and simulated users are never added up. Counts come from SQL; every figure carries the number
behind it and an interval that stays valid while people watch it grow (`backend/confidence.py`).
Knows nothing of pages and of the model.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.confidence import Interval, Tally, interval
from db.models import User
from db.queries import evidence as queries
from db.queries.evidence import Count, ScoreCounts
from db.session import Database

_FRESH_S = 3.0
_SHARE_OF_TIME = 0.2  # of one core, at most, for reading this again and again
_USERS_SHOWN = 100
_VERSIONS_SHOWN = 60
_POINTS = 24  # of a curve, at most
_NARROWEST_STEP = 5

_NOTHING = Tally(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A share with what stands behind it."""

    tally: Tally

    @property
    def count(self) -> int:
        return self.tally.count

    @property
    def share(self) -> float | None:
        """Halves count half; None of nothing."""
        tally = self.tally
        return (tally.wins + tally.halves / 2) / tally.count if tally.count else None

    @property
    def interval(self) -> Interval:
        """95 %, valid at every moment."""
        return interval(self.tally)

    def __add__(self, other: Figure) -> Figure:
        return Figure(self.tally + other.tally)


@dataclass(frozen=True, slots=True)
class Blind:
    """Blind comparisons of personal with generic, as personal sees them."""

    won: int = 0
    lost: int = 0
    tie: int = 0
    both_bad: int = 0

    @property
    def rate(self) -> Figure:
        """The win-rate; ties and both bad are neither wins nor losses and count half."""
        return Figure(Tally(self.won, self.tie + self.both_bad, self.lost))

    def __add__(self, other: Blind) -> Blind:
        return Blind(
            self.won + other.won,
            self.lost + other.lost,
            self.tie + other.tie,
            self.both_bad + other.both_bad,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All figures of one user, one version or one kind of user.

    Attributes:
        personal, generic, wrong: share of choices with a forecast above 0.
        matched: personal, of pairs whose responses are of one length only.
        blind: made when the user had a vector, a profile or drafts to choose from.
        without_vector: blind comparisons in which personal was generic: chance, not evidence.
    """

    personal: Figure = Figure(_NOTHING)
    generic: Figure = Figure(_NOTHING)
    wrong: Figure = Figure(_NOTHING)
    matched: Figure = Figure(_NOTHING)
    blind: Blind = Blind()
    without_vector: Blind = Blind()

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            personal=self.personal + other.personal,
            generic=self.generic + other.generic,
            wrong=self.wrong + other.wrong,
            matched=self.matched + other.matched,
            blind=self.blind + other.blind,
            without_vector=self.without_vector + other.without_vector,
        )


@dataclass(frozen=True, slots=True)
class UserEvidence:
    """One user's figures."""

    user_id: int
    username: str
    simulated: bool
    guest: bool
    figures: Figures


@dataclass(frozen=True, slots=True)
class VersionEvidence:
    """One version's: choices it scored, blind comparisons it made; people or simulated users."""

    version_id: int
    simulated: bool
    figures: Figures


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the lab says about whether it is personal, at one moment.

    Attributes:
        users: those with the most figures first; not all where there are very many.
        versions: newest first; likewise.
    """

    people: Figures
    simulated: Figures
    users: tuple[UserEvidence, ...]
    versions: tuple[VersionEvidence, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Choices of users who had judged `first` to `last` pairs before."""

    first: int
    last: int
    personal: Figure
    generic: Figure
    wrong: Figure


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose curve: one user's, else all people's or all simulated users'."""

    simulated: bool = False
    user_id: int | None = None


class Evidence:
    """Reads the figures; what was read is shared by all viewers for a moment."""

    def __init__(
        self, database: Database, *, identity: str, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._identity = identity
        self._timer = timer
        self._lock = threading.Lock()
        self._snapshot: tuple[float, Snapshot] | None = None  # good until then
        self._curves: dict[Whose, tuple[float, tuple[CurvePoint, ...]]] = {}

    def snapshot(self) -> Snapshot:
        """All figures, a few seconds old at most, or longer where reading them takes long."""
        with self._lock:
            now = self._timer()
            if self._snapshot is None or now >= self._snapshot[0]:
                read = self._read()
                self._snapshot = self._good_until(now), read
            return self._snapshot[1]

    def curve(self, whose: Whose) -> tuple[CurvePoint, ...]:
        """Accuracy against the number of pairs judged before, in steps; as old as `snapshot`."""
        with self._lock:
            now = self._timer()
            kept = {key: value for key, value in self._curves.items() if now < value[0]}
            if whose not in kept:
                read = self._read_curve(whose)
                kept[whose] = self._good_until(now), read
            self._curves = kept
            return kept[whose][1]

    def _good_until(self, began_s: float) -> float:
        now = self._timer()
        return now + max(_FRESH_S, (now - began_s) / _SHARE_OF_TIME)

    def _read(self) -> Snapshot:
        with self._database.read() as session:
            by_user = queries.scores_by_user(session, self._identity)
            by_version = queries.scores_by_version(session, self._identity)
            blind = queries.blind_counts(session, self._identity)
            holders = vector_holders(queries.lineage(session), queries.users_trained(session))
            ids = {counts.group[0] for counts in by_user} | {row.user_id for row in blind}
            users = {user.id: user for user in queries.users_named(session, ids)}
        per_user: defaultdict[int, Figures] = defaultdict(Figures)
        per_version: defaultdict[tuple[int, bool], Figures] = defaultdict(Figures)
        for counts in by_user:
            per_user[counts.group[0]] += _scored(counts)
        for counts in by_version:
            per_version[counts.group[0], bool(counts.group[1])] += _scored(counts)
        for row in blind:
            result = Blind(**{row.verdict: row.count})
            known = row.fitted or row.user_id in holders.get(row.version_id, ())
            figures = Figures(blind=result) if known else Figures(without_vector=result)
            per_user[row.user_id] += figures
            per_version[row.version_id, users[row.user_id].is_simulated] += figures
        return Snapshot(
            people=_sum(per_user, users, simulated=False),
            simulated=_sum(per_user, users, simulated=True),
            users=_user_rows(per_user, users),
            versions=tuple(
                VersionEvidence(version, simulated, per_version[version, simulated])
                for version, simulated in sorted(per_version, reverse=True)[:_VERSIONS_SHOWN]
            ),
        )

    def _read_curve(self, whose: Whose) -> tuple[CurvePoint, ...]:
        with self._database.read() as session:
            most = queries.most_pairs(session, simulated=whose.simulated, user_id=whose.user_id)
            width = max(_NARROWEST_STEP, -(-(most + 1) // _POINTS))
            steps = queries.scores_by_experience(
                session,
                self._identity,
                simulated=whose.simulated,
                user_id=whose.user_id,
                width=width,
            )
        points = ((int(counts.group[0]) * width, _scored(counts)) for counts in steps)
        return tuple(
            CurvePoint(first, first + width - 1, fig.personal, fig.generic, fig.wrong)
            for first, fig in points
        )


def vector_holders(
    lineage: Sequence[tuple[int, int | None, int | None]],
    users_trained: Iterable[tuple[int, int]],
) -> Mapping[int | None, frozenset[int]]:
    """Version → users who have a vector in it: trained on in its round or one it came from.

    Args:
        lineage: version, its round, the version that round began from; parents come first.
        users_trained: round, user.
    """
    trained: defaultdict[int | None, set[int]] = defaultdict(set)
    for trained_in, user_id in users_trained:
        trained[trained_in].add(user_id)
    holders: dict[int | None, frozenset[int]] = {None: frozenset()}
    for version_id, round_id, parent_id in lineage:
        before = holders.get(parent_id, frozenset())
        new = trained[round_id]
        # Mostly the same people: the same set, not a copy for each version.
        holders[version_id] = before if new <= before else before | new
    return holders


def _scored(counts: ScoreCounts) -> Figures:
    return Figures(
        personal=_figure(counts.personal),
        generic=_figure(counts.generic),
        wrong=_figure(counts.wrong),
        matched=_figure(counts.matched),
    )


def _figure(count: Count) -> Figure:
    return Figure(Tally(count.wins, count.halves, count.losses))


def _sum(per_user: Mapping[int, Figures], users: Mapping[int, User], *, simulated: bool) -> Figures:
    total = Figures()
    for user_id, figures in per_user.items():
        if users[user_id].is_simulated == simulated:
            total += figures
    return total


def _user_rows(
    per_user: Mapping[int, Figures], users: Mapping[int, User]
) -> tuple[UserEvidence, ...]:
    rows = [
        UserEvidence(
            user_id,
            users[user_id].username,
            users[user_id].is_simulated,
            users[user_id].is_guest,
            figures,
        )
        for user_id, figures in per_user.items()
    ]
    rows.sort(key=lambda row: (-row.figures.personal.count, row.user_id))
    return tuple(rows[:_USERS_SHOWN])
