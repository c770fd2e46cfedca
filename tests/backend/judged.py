"""Comparisons with verdicts, written straight into a database: as many and odd as a test needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db.models import (
    Base,
    Choice,
    Comparison,
    PrequentialScore,
    Prompt,
    Response,
    Round,
    RoundPair,
    User,
    Version,
)
from db.session import Database
from tests.conftest import Clock


@dataclass(frozen=True)
class Judged:
    """Writes rows; every method returns the new one's id."""

    database: Database
    clock: Clock

    def user(self, name: str, *, simulated: bool = False) -> int:
        row = User(
            username=name, username_key=name, is_simulated=simulated, created_at=self.clock()
        )
        self._add(row)
        return row.id

    def version(self, identity: str = "base", round_id: int | None = None) -> int:
        row = Version(
            round_id=round_id,
            artifact="none",
            manifest_sha256="",
            base_identity=identity,
            created_at=self.clock(),
        )
        self._add(row)
        return row.id

    def round(self, parent: int, choices: Sequence[int], status: str = "promoted") -> int:
        """A round that trained on `choices`."""
        row = Round(
            status=status, lease_epoch=1, parent_id=parent, config={}, started_at=self.clock()
        )
        self._add(row)
        for choice in choices:
            self._add(RoundPair(round_id=row.id, choice_id=choice, use="new"))
        return row.id

    def comparison(
        self,
        user: int,
        version: int,
        *,
        purpose: str = "learn",
        conditions: tuple[str, str] = ("personal", "personal"),
        tokens: tuple[Sequence[int], Sequence[int]] = ((5, 6, 7), (8, 9, 10)),
        texts: tuple[str, str] = ("A", "B"),
        repeats: int | None = None,
    ) -> int:
        """Responses A and B with these token ids and texts, shown to the user.

        Args:
            repeats: the comparison it is a repeat of.
        """
        now = self.clock()
        with self.database.write() as session:
            prompt = Prompt(text="How are you?", topic="own", owner_id=user, created_at=now)
            _flushed(session, prompt)
            comparison = Comparison(
                user_id=user,
                prompt_id=prompt.id,
                purpose=purpose,
                repeat_of_id=repeats,
                created_at=now,
                shown_at=now,
            )
            _flushed(session, comparison)
            for side, condition, ids, text in zip("AB", conditions, tokens, texts, strict=True):
                session.add(
                    Response(
                        comparison_id=comparison.id,
                        side=side,
                        condition=condition,
                        version_id=version,
                        text=text,
                        token_ids=list(ids),
                        ended=True,
                        seed=1,
                        temperature=0.8,
                        top_p=0.95,
                        max_new_tokens=600,
                        seconds=0.1,
                    )
                )
            return comparison.id

    def choice(
        self, user: int, comparison: int, verdict: str, *, supersedes: int | None = None
    ) -> int:
        """A second after whatever came before."""
        self.clock.forward(seconds=1)
        row = Choice(
            comparison_id=comparison,
            user_id=user,
            verdict=verdict,
            supersedes_id=supersedes,
            created_at=self.clock(),
        )
        self._add(row)
        return row.id

    def score(
        self,
        choice: int,
        version: int,
        margins: tuple[float, float, float | None],
        *,
        nth: int = 0,
        tastes: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """Margins: personal, generic, the wrong user's; in place of what a scorer has found.

        Args:
            tastes: what the user's earlier choices said, and the wrong user's.
        """
        personal, generic, wrong = margins
        with self.database.read() as session:
            user = session.get_one(Choice, choice).user_id
        row = PrequentialScore(
            choice_id=choice,
            user_id=user,
            version_id=version,
            nth=nth,
            personal_nats=personal,
            generic_nats=generic,
            wrong_nats=wrong,
            wrong_user_id=None,
            personal_taste_nats=tastes[0],
            wrong_taste_nats=tastes[1],
            scored_at=self.clock(),
        )
        with self.database.write() as session:
            session.merge(row)

    def _add(self, row: Base) -> None:
        with self.database.write() as session:
            session.add(row)


def _flushed(session: Session, row: Base) -> None:
    session.add(row)
    session.flush()
