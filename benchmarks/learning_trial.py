"""One trial: personas choose in rounds, every method learns from the same pairs, texts are judged.

Round by round: each persona judges fresh pairs (in two styles, as the app makes them: along style
directions where the user model has them, else under the user's own vector with wishes in the
prompt) until it has decided often enough; every method scores those choices before it learns from
them; then each takes the same pairs and the same replay.
At the checkpoints everybody answers the held-out prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backend.drafts import best_of, draw_drafts
from backend.taste_model import TasteModel
from benchmarks.learning_arms import (
    EVERYBODY,
    OWN,
    PERSONAL,
    POOLED,
    Arm,
    as_everybody,
    in_place,
    replayed,
    served,
    train,
    untrained,
)
from benchmarks.learning_choosing import Choosing, another
from benchmarks.learning_forgetting import FIRST, after_others, rate_of_user
from benchmarks.learning_judge import answers, judged
from benchmarks.learning_state import Plan, Results, State
from benchmarks.learning_world import Asked, Questions, World, Written, as_prompt
from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.user_vectors import UserVectors, served_vectors

# Beside styled users: their recipe counts on styles in π_ref, against which nothing is undone.
_OF_CONTROLS: Mapping[str, Any] = {"learning_rate_vector": 5e-4, "nll_weight": 0.3}


class Trial:
    """Runs one plan on one world."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        questions: Questions,
        config: TrainConfig,
        *,
        say: Callable[[str], None],
        state: State | None = None,
    ) -> None:
        """Begin, or go on from `state` with the same plan, questions and recipe."""
        self._world = world
        self._plan = plan
        self._questions = questions
        self._config = config
        self._say = say
        self._users = range(1, len(plan.rules) + 1)
        self._state = state or State(random.Random(f"trial {plan.seed}"), self._untrained())
        self._choosing = Choosing(world, plan, questions, self._state)

    def run(self, keep: Callable[[State], None] = lambda _state: None) -> Results:
        """The rounds that are still to do; `keep` gets the state after each."""
        for number in range(self._state.rounds + 1, self._plan.rounds + 1):
            self._say(f"round {number}: choosing")
            with self._served(PERSONAL) as vectors:
                chosen = self._choosing.choose(vectors)
            fresh = [self._world.rows(pair) for pair in chosen]
            self._say(f"round {number}: {len(fresh)} choices, scoring")
            self._state.references |= self._world.references(fresh)
            self._score(fresh, number)
            self._say(f"round {number}: training")
            self._train(fresh, number)
            self._state.pairs += fresh
            done = number * self._plan.per_round
            if done in self._plan.checkpoints:
                self._say(f"judging after {done} choices")
                self._state.results.judged[str(done)] = self._judge(done)
            self._state.rounds = number
            keep(self._state)
        if self._plan.rounds_of_others:
            self._state.results.oldest_user = self._oldest_user()
        return self._state.results

    def _untrained(self) -> dict[str, Arm]:
        start = untrained(self._world.base, self._config, self._world.directions)
        own = [_own(user) for user in self._users] if self._plan.own_adapters else []
        alone = untrained(self._world.base, self._recipe(OWN))
        return {PERSONAL: start} | dict.fromkeys([POOLED, *own], alone)

    def _recipe(self, name: str) -> TrainConfig:
        """What P-DPO is measured against knows one user: adapter and vector learn by its term."""
        if name == PERSONAL:
            return self._config
        own = _OF_CONTROLS if self._config.user_model == "styled" else {}
        return replace(self._config, user_model="individual", alpha=1.0, own_epochs=0, **own)

    def _score(self, fresh: Sequence[PairRows], number: int) -> None:
        """The margins of new choices under every method, before any of them learns from them."""
        users = [pair.pair.user_id for pair in fresh]
        margins: dict[str, list[float]] = {}
        with self._vectors(PERSONAL) as vectors:
            vector = vectors.vector
            others = {user: another(user, number, len(self._users)) for user in self._users}
            for name, prefixes in (
                (PERSONAL, [vector(user) for user in users]),
                ("generic", [vector(None)] * len(users)),
                ("wrong", [vector(others[user]) for user in users]),
            ):
                margins[name] = self._world.margins(fresh, prefixes, self._state.references)
        with self._vectors(POOLED) as vectors:
            prefixes = [vectors.vector(EVERYBODY)] * len(users)
            margins[POOLED] = self._world.margins(fresh, prefixes, self._state.references)
        if self._plan.own_adapters:
            margins[OWN] = self._own_margins(fresh)
        foreseen = {
            name: f"{sum(value > 0 for value in values) / max(1, len(values)):.2f}"
            for name, values in margins.items()
        }
        self._say(f"round {number}: foreseen {foreseen}")
        for index, pair in enumerate(fresh):
            user = pair.pair.user_id
            self._state.decided[user] += 1
            self._state.results.choices.append(
                {
                    "user": user,
                    "nth": self._state.decided[user],
                    "chosen_tokens": len(pair.pair.chosen.token_ids),
                    "rejected_tokens": len(pair.pair.rejected.token_ids),
                    **{name: round(values[index], 4) for name, values in margins.items()},
                    **self._choosing.foreseen.pop(pair.pair.pair_id, {}),
                }
            )

    def _own_margins(self, fresh: Sequence[PairRows]) -> list[float]:
        margins: dict[int, float] = {}
        for user in self._users:
            mine = [i for i, pair in enumerate(fresh) if pair.pair.user_id == user]
            with self._vectors(_own(user)) as vectors:
                some = [fresh[i] for i in mine]
                found = self._world.margins(
                    some, [vectors.vector(EVERYBODY)] * len(mine), self._state.references
                )
            margins |= dict(zip(mine, found, strict=True))
        return [margins[i] for i in range(len(fresh))]

    def _train(self, fresh: Sequence[PairRows], number: int) -> None:
        plan = self._plan
        rng = random.Random(f"replay {plan.seed} {number}")
        pairs = [*fresh, *replayed(self._state.pairs, round(plan.replay * len(fresh)), rng)]
        for name, arm in self._state.arms.items():
            mine = pairs
            if name.startswith(OWN):
                mine = [pair for pair in pairs if _own(pair.pair.user_id) == name]
            recipe = self._recipe(name)
            self._state.arms[name], seconds = train(
                self._world.base,
                arm,
                mine if name == PERSONAL else as_everybody(mine),
                self._state.references,
                recipe,
                seed=f"{plan.seed}/{number}",
                shares=self._shares() if recipe.user_model == "styled" else None,
            )
            kind = OWN if name.startswith(OWN) else name
            spent = self._state.results.train_s.setdefault(kind, [])
            if len(spent) < number:
                spent.append(0.0)
            spent[-1] = round(spent[-1] + seconds, 2)

    def _shares(self) -> dict[int, Tensor]:
        """User → how much of each style direction, (K,)."""
        return {user: self._state.records.shares(user) for user in self._users}

    def _judge(self, done: int) -> dict[str, Any]:
        """Everybody answers the held-out prompts; what rules and base model make of the texts."""
        prompts = [as_prompt(question) for question in self._questions.held_out]
        seed = 1000 * self._plan.seed + done
        texts = answers(self._world, prompts, {"base": None}, seed=seed)
        for name in self._state.arms:
            with self._served(name) as vectors:
                writers: dict[str, Tensor | None] = {}
                if name == PERSONAL:
                    writers = {"generic": vectors.generic, **self._styles_alone()}
                    for user in self._users:
                        taste = self._state.records.of(user)
                        texts |= self._drafted(f"user {user}", vectors, user, taste, seed)
                elif name == POOLED:
                    taste = self._state.records.of_all()
                    texts |= self._drafted(POOLED, vectors, EVERYBODY, taste, seed)
                else:
                    writers = {name: vectors.vector(EVERYBODY)}
                texts |= answers(self._world, prompts, writers, seed=seed)
        return judged(self._world, prompts, texts, self._plan.rules)

    def _drafted(
        self, writer: str, vectors: UserVectors, user: int, taste: TasteModel, seed: int
    ) -> dict[str, list[Written]]:
        """As the app answers where nobody waits: the best of some drafts; and the first one."""
        styles = self._state.records.styles
        asked: list[Asked] = []
        for number, question in enumerate(self._questions.held_out):
            along = styles if vectors.styles is not None else ()
            drawn = draw_drafts(self._plan.drafts, seed + number, None, along, taste)
            # Equal ones next to each other, so that they are read once; the first stays the first.
            for nth in sorted(0 if one.style is None else styles.index(one.style) for one in drawn):
                wished = None if vectors.styles is None or not nth else vectors.styles[nth - 1]
                vector = vectors.vector(user) if wished is None else wished
                asked.append(Asked(as_prompt(question), vector))
        made = self._world.write(asked, seed=seed + user)
        groups = [made[n : n + self._plan.drafts] for n in range(0, len(made), self._plan.drafts)]
        best = [
            group[best_of([one.text for one in group], taste, question)]
            for question, group in zip(self._questions.held_out, groups, strict=True)
        ]
        return {writer: best, f"one draft {writer}": [group[0] for group in groups]}

    def _styles_alone(self) -> dict[str, Tensor | None]:
        """Every user's vector without what P-DPO learnt: what shares of styles do by themselves."""
        kept = self._state.arms[PERSONAL].users
        if "directions" not in kept:
            return {}
        alone = served_vectors({**kept, "offsets": torch.zeros_like(kept["offsets"])})
        return {f"styles {user}": alone.vector(user) for user in self._users}

    def _oldest_user(self) -> dict[str, float]:
        arm, rule = self._state.arms[PERSONAL], self._plan.rules[0]
        after = after_others(
            self._world,
            arm,
            self._state.pairs,
            self._state.references,
            self._config,
            rounds=self._plan.rounds_of_others,
            per_round=self._plan.per_round,
        )
        prompts = [as_prompt(question) for question in self._questions.held_out]
        return {
            when: rate_of_user(self._world, prompts, then, self._config, user=FIRST, rule=rule)
            for when, then in (("before", arm), ("after", after))
        }

    def _served(self, name: str) -> AbstractContextManager[UserVectors]:
        """The arm as it writes texts; gives every user's vector."""
        return served(self._world.base, self._state.arms[name], self._recipe(name))

    @contextmanager
    def _vectors(self, name: str) -> Iterator[UserVectors]:
        """The arm as it reads texts, its adapter beside the weights; gives every user's vector."""
        with in_place(self._world.base, self._state.arms[name], self._recipe(name)) as (_, users):
            yield users.vectors()


def _own(user: int) -> str:
    return f"{OWN} {user}"
