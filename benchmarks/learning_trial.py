"""One trial: personas choose in rounds, every method learns from the same pairs, texts are judged.

Round by round: each persona judges fresh pairs (made under its own current vector, sides with
wishes of two styles, as the app makes them) until it has decided often enough; every method
scores those choices before it learns from them; then each takes the same pairs and the same replay.
At the checkpoints everybody answers the held-out prompts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from backend.persona_rules import RULES
from backend.styles import Record, Style, draw_styles, in_style, load_styles
from benchmarks.learning_arms import Arm, in_place, replayed, train, untrained, without_users
from benchmarks.learning_world import Asked, Questions, World, Written, as_prompt, preference
from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.probes import ProbeText, text_figures
from trainer.types import PreferencePair

Vector = Callable[[int | None], Tensor]

PERSONAL, POOLED, OWN = "personal", "pooled", "own"
_MADE_PER_MISSING = (1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a trial does.

    Attributes:
        rules: the personas, opposed ones next to each other.
        per_round: choices of each persona between two rounds of training.
        rounds: how many.
        checkpoints: numbers of choices after which texts are judged.
        replay: older pairs per new pair in a round.
        shared: share of a round's pairs that everybody judges, made under e₀.
        varied: share of pairs whose sides follow wishes of two styles.
        vectors_only: P-DPO trains the users' vectors alone (its own term, e₀ and adapter at rest),
            pooled DPO its one vector alone, so that both have as much to learn with.
        own_adapters: also train one adapter per user.
        seed: of everything drawn.
    """

    rules: tuple[str, ...]
    per_round: int
    rounds: int
    checkpoints: tuple[int, ...]
    replay: float
    shared: float
    varied: float
    vectors_only: bool
    own_adapters: bool
    seed: int


@dataclass(slots=True)
class Results:
    """What a trial found; plain data.

    Attributes:
        choices: one record per choice: user, nth, margins in nats by method.
        judged: checkpoint → figures.
        train_s: seconds of training by method, round by round.
        ties: comparisons in which a persona had no preference.
    """

    choices: list[dict[str, Any]] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)
    train_s: dict[str, list[float]] = field(default_factory=dict)
    ties: int = 0


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A comparison before anything is written; `user` is None where everybody judges it."""

    user: int | None
    question: str
    styles: tuple[Style, Style]


class Trial:
    """Runs one plan on one world."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        questions: Questions,
        config: TrainConfig,
        say: Callable[[str], None],
    ) -> None:
        self.results = Results()
        self._world = world
        self._plan = plan
        self._questions = questions
        self._config = config
        self._say = say
        self._users = range(1, len(plan.rules) + 1)
        self._rng = random.Random(f"trial {plan.seed}")
        self._styles = load_styles()
        self._records: dict[int | None, dict[str, Record]] = {user: {} for user in self._users}
        self._references: dict[int, float] = {}
        self._pairs: list[PairRows] = []
        self._asked = 0
        self._seen: Counter[int | None] = Counter()
        start = untrained(world.base, config)
        self._arms: dict[str, Arm] = {PERSONAL: start, POOLED: start}
        if plan.own_adapters:
            self._arms |= {_own(user): start for user in self._users}

    def run(self) -> Results:
        """All rounds."""
        for number in range(1, self._plan.rounds + 1):
            self._say(f"round {number}: choosing")
            fresh = [self._world.rows(pair) for pair in self._choose()]
            self._say(f"round {number}: {len(fresh)} choices, scoring")
            self._references |= self._world.references(fresh)
            self._score(fresh, number)
            self._say(f"round {number}: training")
            self._train(fresh, number)
            self._pairs += fresh
            done = number * self._plan.per_round
            if done in self._plan.checkpoints:
                self._say(f"judging after {done} choices")
                self.results.judged[str(done)] = self._judge(done)
        return self.results

    def _choose(self) -> list[PreferencePair]:
        """`per_round` decided comparisons of every persona, where they can be had.

        First come pairs that everybody judges, then pairs made for one persona under its vector.
        """
        decided: dict[int, list[PreferencePair]] = {user: [] for user in self._users}
        with self._personal() as vector:
            shared = round(self._plan.shared * self._plan.per_round)
            for drawn, texts in self._made([(None, vector(None))] * shared):
                for user in self._users:
                    self._judged(decided, user, drawn, texts)
            # Some come without a preference: where pairs are still missing, more are made.
            for made_per_missing in _MADE_PER_MISSING:
                wanting = [
                    (user, vector(user))
                    for user, pairs in decided.items()
                    for _ in range(made_per_missing * (self._plan.per_round - len(pairs)))
                ]
                for drawn, texts in self._made(wanting):
                    assert drawn.user is not None
                    if len(decided[drawn.user]) < self._plan.per_round:
                        self._judged(decided, drawn.user, drawn, texts)
        return [pair for pairs in decided.values() for pair in pairs]

    def _made(
        self, wanting: Sequence[tuple[int | None, Tensor]]
    ) -> list[tuple[_Drawn, tuple[Written, Written]]]:
        """One comparison for each user, or for all (None), under the vector given."""
        if not wanting:
            return []
        drawn = []
        asked: list[Asked] = []
        for user, vector in wanting:
            # Everybody goes through the prompts in one order: opposed tastes meet on one prompt.
            training = self._questions.training
            question = training[self._seen[user] % len(training)]
            self._seen[user] += 1
            styles = draw_styles(self._styles, self._records.get(user, {}), self._rng)
            if self._rng.random() >= self._plan.varied:
                styles = (self._styles[0], self._styles[0])
            drawn.append(_Drawn(user, question, styles))
            asked += [Asked(in_style(as_prompt(question), style), vector) for style in styles]
        texts = self._world.write(asked, seed=self._rng.randrange(2**31))
        return list(zip(drawn, zip(texts[::2], texts[1::2], strict=True), strict=True))

    def _judged(
        self,
        decided: dict[int, list[PreferencePair]],
        user: int,
        drawn: _Drawn,
        texts: tuple[Written, Written],
    ) -> None:
        """Let one persona judge; without a preference the comparison is counted only."""
        self._asked += 1
        pair = preference(self._asked, user, drawn.question, texts, self._plan.rules[user - 1])
        if pair is None:
            self.results.ties += 1
            return
        styles = drawn.styles
        won, lost = styles if pair.chosen.token_ids == texts[0].token_ids else styles[::-1]
        self._remember(user, won.name, lost.name)
        decided[user].append(pair)

    def _remember(self, user: int, won: str, lost: str) -> None:
        records = self._records[user]
        if won != lost:
            old = records.get(won, Record())
            records[won] = Record(old.won + 1, old.lost)
            old = records.get(lost, Record())
            records[lost] = Record(old.won, old.lost + 1)

    def _score(self, fresh: Sequence[PairRows], number: int) -> None:
        """The margins of new choices under every method, before any of them learns from them."""
        users = [pair.pair.user_id for pair in fresh]
        margins: dict[str, list[float]] = {}
        with self._personal() as vector:
            others = {user: self._another(user, number) for user in self._users}
            for name, prefixes in (
                (PERSONAL, [vector(user) for user in users]),
                ("generic", [vector(None)] * len(users)),
                ("wrong", [vector(others[user]) for user in users]),
            ):
                margins[name] = self._world.margins(fresh, prefixes, self._references)
        with self._vectors(self._arms[POOLED]) as vector:
            prefixes = [vector(None)] * len(users)
            margins[POOLED] = self._world.margins(fresh, prefixes, self._references)
        if self._plan.own_adapters:
            margins[OWN] = self._own_margins(fresh)
        foreseen = {
            name: f"{sum(value > 0 for value in values) / max(1, len(values)):.2f}"
            for name, values in margins.items()
        }
        self._say(f"round {number}: foreseen {foreseen}")
        nth: Counter[int] = Counter()
        for index, pair in enumerate(fresh):
            user = pair.pair.user_id
            nth[user] += 1
            self.results.choices.append(
                {
                    "user": user,
                    "nth": (number - 1) * self._plan.per_round + nth[user],
                    "chosen_tokens": len(pair.pair.chosen.token_ids),
                    "rejected_tokens": len(pair.pair.rejected.token_ids),
                    **{name: round(values[index], 4) for name, values in margins.items()},
                }
            )

    def _own_margins(self, fresh: Sequence[PairRows]) -> list[float]:
        margins: dict[int, float] = {}
        for user in self._users:
            mine = [i for i, pair in enumerate(fresh) if pair.pair.user_id == user]
            with self._vectors(self._arms[_own(user)]) as vector:
                some = [fresh[i] for i in mine]
                found = self._world.margins(some, [vector(None)] * len(mine), self._references)
            margins |= dict(zip(mine, found, strict=True))
        return [margins[i] for i in range(len(fresh))]

    def _another(self, user: int, number: int) -> int:
        """Somebody else, another one each round, opposed or not."""
        count = len(self._users)
        return (user - 1 + 1 + number % (count - 1)) % count + 1

    def _train(self, fresh: Sequence[PairRows], number: int) -> None:
        plan, config = self._plan, self._config
        rng = random.Random(f"replay {plan.seed} {number}")
        pairs = [*fresh, *replayed(self._pairs, round(plan.replay * len(fresh)), rng)]
        for name in self._arms:
            mine = pairs
            personal, alone = name == PERSONAL, plan.vectors_only and not name.startswith(OWN)
            recipe = config if personal and not alone else without_users(config)
            if name.startswith(OWN):
                mine = [pair for pair in pairs if _own(pair.pair.user_id) == name]
            learning = sorted({p.pair.user_id for p in mine}) if personal else ()
            self._arms[name], seconds = train(
                self._world.base,
                self._arms[name],
                mine,
                self._references,
                recipe,
                learning=learning,
                seed=f"{plan.seed}/{number}",
                shared=not (personal and alone),
                adapter=not alone,
            )
            kind = OWN if name.startswith(OWN) else name
            spent = self.results.train_s.setdefault(kind, [])
            if len(spent) < number:
                spent.append(0.0)
            spent[-1] = round(spent[-1] + seconds, 2)

    def _judge(self, done: int) -> dict[str, Any]:
        """Everybody answers the held-out prompts; what rules and base model make of the texts."""
        held_out = [as_prompt(question) for question in self._questions.held_out]
        seed = 1000 * self._plan.seed + done
        texts: dict[str, list[Written]] = {}
        with self._personal() as vector:
            writers: dict[str, Tensor] = {"generic": vector(None)}
            writers |= {f"user {user}": vector(user) for user in self._users}
            asked = [Asked(prompt, v) for v in writers.values() for prompt in held_out]
            written = self._world.write(asked, seed=seed)
            for index, name in enumerate(writers):
                texts[name] = written[index * len(held_out) : (index + 1) * len(held_out)]
        for name, arm in self._arms.items():
            if name != PERSONAL:
                with self._vectors(arm) as vector:
                    asked = [Asked(prompt, vector(None)) for prompt in held_out]
                    texts[name] = self._world.write(asked, seed=seed)
        asked = [Asked(prompt, None) for prompt in held_out]
        texts["base"] = self._world.write(asked, seed=seed)
        read = {name: self._world.read(asked, written) for name, written in texts.items()}
        return {
            "winrates": self._winrates(read),
            "health": {name: _health(some) for name, some in read.items()},
            "texts": {name: [text.text for text in some] for name, some in read.items()},
        }

    def _winrates(self, read: dict[str, list[ProbeText]]) -> dict[str, dict[str, float]]:
        """rule → share of held-out prompts won by the persona's texts, ties half."""
        found: dict[str, dict[str, float]] = {}
        for user in self._users:
            rule = self._plan.rules[user - 1]
            mine = read[f"user {user}"]
            rates = {
                f"vs {other}": winrate(rule, mine, read[other])
                for other in ("generic", "base", POOLED)
            }
            rates |= {
                f"wrong {other}": winrate(rule, read[f"user {other}"], read["generic"])
                for other in self._users
                if other != user
            }
            if self._plan.own_adapters:
                rates["own vs generic"] = winrate(rule, read[_own(user)], read["generic"])
                rates["own vs base"] = winrate(rule, read[_own(user)], read["base"])
            rates["pooled vs base"] = winrate(rule, read[POOLED], read["base"])
            found[rule] = {name: round(rate, 4) for name, rate in rates.items()}
        return found

    def _personal(self) -> AbstractContextManager[Vector]:
        return self._vectors(self._arms[PERSONAL])

    @contextmanager
    def _vectors(self, arm: Arm) -> Iterator[Vector]:
        """The arm in place; gives every user's vector as it would be served."""
        with in_place(self._world.base, arm, self._config) as (_, users):
            yield users.vectors().vector


def winrate(rule: str, mine: Sequence[ProbeText], others: Sequence[ProbeText]) -> float:
    """Share of prompts where `mine` suits the rule better, ties counted half."""
    points = [
        (RULES[rule].prefers(a.text, b.text) + 1) / 2 for a, b in zip(mine, others, strict=True)
    ]
    return sum(points) / len(points)


def _health(texts: Sequence[ProbeText]) -> dict[str, Any]:
    figures = text_figures(texts)
    nll = [t.nll_nats / max(1, len(t.token_ids)) for t in texts]
    return {**asdict(figures), "nll_each": [round(value, 3) for value in nll]}


def _own(user: int) -> str:
    return f"{OWN} {user}"
