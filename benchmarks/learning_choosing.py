"""How the personas of a trial choose: pairs are made, judged by rule, and remembered.

Knows nothing of training, margins and held-out texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.styles import Style
from benchmarks.learning_arms import PERSONAL, POOLED
from benchmarks.learning_state import Plan, State
from benchmarks.learning_world import Asked, Questions, World, Written, as_prompt, preference
from trainer.types import PreferencePair
from trainer.user_vectors import UserVectors

_MADE_PER_MISSING = (1, 3)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A comparison before anything is written; `user` is None where everybody judges it."""

    user: int | None
    question: str
    styles: tuple[Style, Style]


class Choosing:
    """Makes comparisons in two styles and lets the personas judge them.

    Attributes:
        foreseen: pair → method → log-odds, nats, that earlier choices gave to this one.
    """

    def __init__(self, world: World, plan: Plan, questions: Questions, state: State) -> None:
        """Prompts, records and what is drawn are `state`'s, which goes on with every choice."""
        self._world = world
        self._plan = plan
        self._questions = questions
        self._state = state
        self._users = range(1, len(plan.rules) + 1)
        self.foreseen: dict[int, dict[str, float]] = {}

    def choose(self, served: UserVectors) -> list[PreferencePair]:
        """`per_round` decided comparisons of every persona, where they can be had.

        First come pairs that everybody judges, then pairs made for one persona under its vector.
        """
        decided: dict[int, list[PreferencePair]] = {user: [] for user in self._users}
        shared = round(self._plan.shared * self._plan.per_round)
        for drawn, texts in self._made([None] * shared, served):
            for user in self._users:
                self._judged(decided, user, drawn, texts)
        # Some come without a preference: where pairs are still missing, more are made.
        for made_per_missing in _MADE_PER_MISSING:
            wanting = [
                user
                for user, pairs in decided.items()
                for _ in range(made_per_missing * (self._plan.per_round - len(pairs)))
            ]
            for drawn, texts in self._made(wanting, served):
                assert drawn.user is not None
                if len(decided[drawn.user]) < self._plan.per_round:
                    self._judged(decided, drawn.user, drawn, texts)
        return [pair for pairs in decided.values() for pair in pairs]

    def _made(
        self, wanting: Sequence[int | None], served: UserVectors
    ) -> list[tuple[_Drawn, tuple[Written, Written]]]:
        """One comparison for each user, or for all (None)."""
        if not wanting:
            return []
        drawn = []
        asked: list[Asked] = []
        for user in wanting:
            # Everybody goes through the prompts in one order: opposed tastes meet on one prompt.
            training = self._questions.training
            question = training[self._state.seen[user] % len(training)]
            self._state.seen[user] += 1
            styles = self._state.records.draw(user, self._state.rng)
            if self._state.rng.random() >= self._plan.varied:
                styles = (self._state.records.styles[0], self._state.records.styles[0])
            drawn.append(_Drawn(user, question, styles))
            asked += [self._asked(question, user, style, served) for style in styles]
        texts = self._world.write(asked, seed=self._state.rng.randrange(2**31))
        return list(zip(drawn, zip(texts[::2], texts[1::2], strict=True), strict=True))

    def _asked(self, question: str, user: int | None, style: Style, served: UserVectors) -> Asked:
        """A style is a vector of its own where there are directions, else a wish in the prompt."""
        if served.styles is None:
            return Asked(as_prompt(question, style.wish), served.vector(user))
        nth = self._state.records.styles.index(style)
        return Asked(as_prompt(question), served.styles[nth - 1] if nth else served.generic)

    def _judged(
        self,
        decided: dict[int, list[PreferencePair]],
        user: int,
        drawn: _Drawn,
        texts: tuple[Written, Written],
    ) -> None:
        """Let one persona judge; without a preference the comparison is counted only."""
        self._state.asked += 1
        pair = preference(
            self._state.asked, user, drawn.question, texts, self._plan.rules[user - 1]
        )
        if pair is None:
            self._state.results.ties += 1
            return
        first, second = (written.text for written in texts)
        chosen = pair.chosen.token_ids == texts[0].token_ids
        preferred, other = (first, second) if chosen else (second, first)
        self.foreseen[pair.pair_id] = self._said_by_choices(user, preferred, other)
        self._state.records.remember(user, preferred, other)
        decided[user].append(pair)

    def _said_by_choices(self, user: int, preferred: str, other: str) -> dict[str, float]:
        """The log-odds of this choice by the choices that were made before it."""
        records = self._state.records
        other_user = another(user, self._state.rounds + 1, len(self._users))
        return {
            f"{PERSONAL}_taste": records.said(user, preferred, other),
            "wrong_taste": records.said(other_user, preferred, other),
            f"{POOLED}_taste": records.said_by_all(preferred, other),
        }


def another(user: int, number: int, count: int) -> int:
    """Somebody else of `count` users, another one each round, opposed or not."""
    return (user - 1 + 1 + number % (count - 1)) % count + 1
