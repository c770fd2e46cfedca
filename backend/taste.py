"""What may be said to people about themselves: how well it foresees them, what they lean to.

Every figure carries its counts; the curve is the share of all choices so far, so that its last
point is the figure itself, and its band may be looked at as often as one likes.
Knows nothing of pages and of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backend.confidence import Tally
from backend.evidence import Blind, Figure, vector_holders
from backend.leanings import LeaningReader, Leanings
from db.queries import evidence as queries
from db.queries.history import own_forecasts
from db.session import Database

FEWEST = 10  # outcomes, below which there is no figure
_POINTS = 48  # of a curve, at most
_NOTHING = Tally(0, 0, 0)


@dataclass(frozen=True, slots=True)
class TastePoint:
    """Shares of the first `choices` choices."""

    choices: int
    personal: Figure
    generic: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """One user's figures.

    Attributes:
        personal, generic, wrong: choices foreseen by the user's own taste, without any taste and
            by somebody else's.
        apart: of the choices where another side was ahead with the own taste than without it, those
            in which the own one was right.
        blind: made when the user had a vector, a profile or drafts to choose from.
        before: blind comparisons made before that; they say nothing.
        curve: from the first choice on; its last point is `personal` and `generic`.
    """

    personal: Figure
    generic: Figure
    wrong: Figure
    apart: Figure
    blind: Blind
    before: int
    curve: tuple[TastePoint, ...]


class Tastes:
    """Reads one user's figures and leanings."""

    def __init__(self, database: Database, *, identity: str) -> None:
        """Begin.

        Args:
            identity: the base model; what another one foresaw is no figure of this one.
        """
        self._database = database
        self._identity = identity
        self._leanings = LeaningReader(database)

    def leanings(self, user_id: int) -> Leanings:
        """What this user's choices lean to, whichever model wrote the texts."""
        return self._leanings.of(user_id)

    def of(self, user_id: int) -> Taste:
        """This user's figures as they stand."""
        with self._database.read() as session:
            forecasts = own_forecasts(session, self._identity, user_id)
            blind = queries.blind_counts(session, self._identity, user_id)
            holders = vector_holders(
                queries.lineage(session), queries.users_trained(session, user_id)
            )
        known, before = Blind(), Blind()
        for row in blind:
            result = Blind(**{row.verdict: row.count})
            if row.fitted or user_id in holders.get(row.version_id, ()):
                known += result
            else:
                before += result
        return Taste(
            personal=Figure(_foreseen(mine for mine, _, _ in forecasts)),
            generic=Figure(_foreseen(shared for _, shared, _ in forecasts)),
            wrong=Figure(_foreseen(wrong for _, _, wrong in forecasts if wrong is not None)),
            apart=Figure(_foreseen(mine for mine, shared, _ in forecasts if mine * shared < 0)),
            blind=known,
            before=before.rate.count,
            curve=curve([(mine, shared) for mine, shared, _ in forecasts]),
        )


def curve(forecasts: Sequence[tuple[float, float]]) -> tuple[TastePoint, ...]:
    """The shares after every choice, or after every few where there are many; the last is kept.

    Args:
        forecasts: personal and generic, above 0 if right, in the order of the choices.
    """
    every = max(1, -(-len(forecasts) // _POINTS))
    points = []
    personal, generic = _NOTHING, _NOTHING
    for number, (mine, shared) in enumerate(forecasts, start=1):
        personal += _outcome(mine)
        generic += _outcome(shared)
        if number == 1 or number % every == 0 or number == len(forecasts):
            points.append(TastePoint(number, Figure(personal), Figure(generic)))
    return tuple(points)


def _foreseen(forecasts: Iterable[float]) -> Tally:
    return sum((_outcome(forecast) for forecast in forecasts), start=_NOTHING)


def _outcome(forecast: float) -> Tally:
    return Tally(int(forecast > 0), int(forecast == 0), int(forecast < 0))
