"""Comparisons being made: which two conditions, which side, generate, store in one transaction.

A comparison exists in the database only once both responses are complete; until then it lives here,
so that a page that is reloaded finds the same responses still streaming.
Knows nothing of choices.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from backend.engines.base import (
    Condition,
    Engine,
    EngineClosed,
    EngineFailed,
    Generated,
    Generation,
    GenerationRequest,
    Priority,
    Sampling,
)
from backend.errors import Unavailable
from backend.shared_pairs import SharedPairs
from backend.styles import Record, Style, draw_styles, with_example
from db.models import Comparison, Response
from db.queries import comparisons as queries
from db.session import Database
from trainer.prompting import personal_messages
from trainer.types import Message

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PromptText:
    """The prompt a comparison is made for."""

    prompt_id: int
    text: str
    topic: str
    own: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison will be: decided before a token is generated.

    Attributes:
        purpose: `learn` (two personal samples), `blind` (personal against generic, never trained
            on) or `base` (personal against the untouched base model).
        conditions: of sides A and B, in this order.
        seeds: likewise.
        styles: likewise; None answers as it comes.
    """

    purpose: str
    conditions: tuple[Condition, Condition]
    seeds: tuple[int, int]
    styles: tuple[Style | None, Style | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How often which kind of comparison is made.

    Attributes:
        blind: personal against generic, of all.
        base: personal against the base model, of all.
        varied: two styles side by side, of the rest.
    """

    blind: float
    base: float
    varied: float = 0.0


def draw_plan(
    rng: random.Random,
    shares: Shares,
    styles: Sequence[Style] = (),
    records: Mapping[str, Record] | None = None,
) -> Plan:
    """Draw why a comparison is made, its conditions, sides and styles. Pure but for `rng`."""
    draw = rng.random()
    if draw < shares.blind:
        purpose, other = "blind", Condition.GENERIC
    elif draw < shares.blind + shares.base:
        purpose, other = "base", Condition.BASE
    else:
        purpose, other = "learn", Condition.PERSONAL
    conditions = (Condition.PERSONAL, other)
    if rng.random() < 0.5:
        conditions = (other, Condition.PERSONAL)
    drawn: tuple[Style | None, Style | None] = (None, None)
    if purpose == "learn" and len(styles) > 1 and rng.random() < shares.varied:
        liked, any_other = draw_styles(styles, records or {}, rng)
        drawn = (liked, any_other) if rng.random() < 0.5 else (any_other, liked)
    seeds = (rng.randrange(_MAX_SEED), rng.randrange(_MAX_SEED))
    return Plan(purpose, conditions, seeds, drawn)


def draw_shared_plan(rng: random.Random, styles: Sequence[Style]) -> Plan:
    """A pair for many: both sides under e₀, in two styles drawn alike for everybody."""
    first, second = rng.sample(list(styles), 2)
    seeds = (rng.randrange(_MAX_SEED), rng.randrange(_MAX_SEED))
    return Plan("learn", (Condition.GENERIC, Condition.GENERIC), seeds, (first, second))


class Making:
    """One comparison on its way to the database."""

    stored: Future[int]  # the comparison's id, once it is in the database

    def __init__(
        self,
        prompt: PromptText,
        plan: Plan,
        generation: Generation,
        *,
        shown: bool,
        profile: str,
    ) -> None:
        self.prompt = prompt
        self.plan = plan
        self.profile = profile  # the user's, as it stands in the personal prompts
        self.generation = generation
        self.shown = shown

    def texts(self) -> Iterator[tuple[str, str]]:
        """Texts of sides A and B as they grow.

        Raises:
            Unavailable: the model failed or was stopped.
        """
        try:
            for texts in self.generation.stream():
                yield texts[0], texts[1]
        except (EngineFailed, EngineClosed) as error:
            raise _unavailable() from error

    def comparison_id(self, timeout_s: float) -> int:
        """Wait until it is stored.

        Raises:
            Unavailable: the model or the database failed, or it took too long.
        """
        try:
            return self.stored.result(timeout_s)
        except (EngineFailed, EngineClosed, TimeoutError) as error:
            raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("The model could not answer just now. Please try again.")


class Maker:
    """Starts comparisons and stores them when they are complete.

    `making(user_id)` is the registry of those under way; each ends by itself even when no page
    waits for it any more.
    """

    def __init__(
        self,
        database: Database,
        engine: Engine,
        *,
        sampling: Sampling,
        shares: Shares,
        clock: Callable[[], datetime],
        rng: random.Random,
        styles: Sequence[Style] = (),
        shared: SharedPairs | None = None,
        profile_of: Callable[[int], str] = lambda _user_id: "",
    ) -> None:
        self._database = database
        self._engine = engine
        self._profile_of = profile_of
        self._sampling = sampling
        self._shares = shares
        self._styles = styles
        self._shared = shared
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._under_way: dict[int, list[Making]] = {}
        self._waiters = ThreadPoolExecutor(max_workers=64, thread_name_prefix="making")

    def start(self, user_id: int, prompt: PromptText, priority: Priority, *, shown: bool) -> Making:
        """Begin a comparison for `user_id`.

        Args:
            shown: the user watches it being made.

        Raises:
            Unavailable: the engine is closed. ValueError: the prompt does not fit the model.
        """
        plan = self._plan(user_id, prompt)
        profile = self._profile_of(user_id)
        messages: tuple[Message, ...] = ({"role": "user", "content": prompt.text},)
        personal = personal_messages(messages, profile)
        requests = [
            GenerationRequest(
                messages=with_example(
                    personal if condition is Condition.PERSONAL else messages, style
                ),
                condition=condition,
                user_id=user_id,
                sampling=replace(self._sampling, seed=seed),
            )
            for condition, seed, style in zip(plan.conditions, plan.seeds, plan.styles, strict=True)
        ]
        try:
            generation = self._engine.generate(requests, priority)
        except EngineClosed as error:
            raise _unavailable() from error
        making = Making(prompt, plan, generation, shown=shown, profile=profile)
        with self._lock:
            self._under_way.setdefault(user_id, []).append(making)
            making.stored = self._waiters.submit(self._finish, user_id, making)
        return making

    def under_way(self, user_id: int) -> tuple[Making, ...]:
        """Comparisons being made for this user, oldest first."""
        with self._lock:
            return tuple(self._under_way.get(user_id, ()))

    def close(self) -> None:
        """Wait for the last ones to end; the engine must have been closed before."""
        self._waiters.shutdown(wait=True)

    def hand_over(self, user_id: int) -> bool:
        """Give a user who has just begun a pair others judge too, if there is one; not shown yet.

        Its place is among the prefetched ones.
        """
        live = self._engine.live_version
        if self._shared is None or live is None:
            return False
        return self._shared.hand_over(user_id, live.version_id)

    def _plan(self, user_id: int, prompt: PromptText) -> Plan:
        if self._shared is not None and not prompt.own and self._shared.begins(user_id):
            with self._lock:
                return draw_shared_plan(self._rng, self._styles)
        records = self._records(user_id)
        with self._lock:
            return draw_plan(self._rng, self._shares, self._styles, records)

    def _records(self, user_id: int) -> dict[str, Record]:
        """How the styles have fared with this user."""
        if not self._styles:
            return {}
        with self._database.read() as session:
            judged = queries.style_choices(session, user_id)
        won, lost = Counter(w for w, _ in judged), Counter(x for _, x in judged)
        return {name: Record(won[name], lost[name]) for name in won.keys() | lost.keys()}

    def _finish(self, user_id: int, making: Making) -> int:
        try:
            return self._store(user_id, making, making.generation.result())
        finally:
            self._drop(user_id, making)

    def _drop(self, user_id: int, making: Making) -> None:
        with self._lock:
            left = [other for other in self._under_way[user_id] if other is not making]
            if left:
                self._under_way[user_id] = left
            else:
                del self._under_way[user_id]

    def _store(self, user_id: int, making: Making, responses: Sequence[Generated]) -> int:
        now = self._clock()
        # What was erased while the responses were written is not recorded any more.
        profile = making.profile if self._profile_of(user_id) else ""
        with self._database.write() as session:
            comparison = Comparison(
                user_id=user_id,
                prompt_id=making.prompt.prompt_id,
                purpose=making.plan.purpose,
                created_at=now,
                shown_at=now if making.shown else None,
            )
            session.add(comparison)
            session.flush()
            plan = making.plan
            rows = zip("AB", plan.conditions, plan.seeds, plan.styles, responses, strict=True)
            for side, condition, seed, style, made in rows:
                row = self._row(comparison.id, side, condition, seed, made)
                row.style = style.name if style is not None else None
                row.profile = profile if condition is Condition.PERSONAL else ""
                session.add(row)
        return comparison.id

    def _row(
        self, comparison_id: int, side: str, condition: Condition, seed: int, made: Generated
    ) -> Response:
        return Response(
            comparison_id=comparison_id,
            side=side,
            condition=condition.value,
            version_id=made.version_id,
            text=made.text,
            token_ids=list(made.token_ids),
            ended=made.ended,
            seed=seed,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_new_tokens=self._sampling.max_new_tokens,
            seconds=made.seconds,
        )
