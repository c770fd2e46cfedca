"""Comparisons being made: which two conditions, which side, generate, store in one transaction.

A comparison exists in the database only once both responses are complete; until then it lives here,
so that a page that is reloaded finds the same responses still streaming.
Knows of choices only the taste that they make.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from backend.drafts import Draft, draw_drafts
from backend.engines.base import (
    Condition,
    Engine,
    EngineClosed,
    EngineFailed,
    Generated,
    GenerationRequest,
    Priority,
    Sampling,
)
from backend.errors import Conflict
from backend.plans import Plan, Shares, draw_plan, draw_seed, draw_shared_plan
from backend.repeats import Repeats
from backend.shared_pairs import SharedPairs
from backend.styles import Style, in_style
from backend.taste_model import STRANGER, TasteModel
from backend.under_way import Making, PromptText, Written, unavailable
from backend.user_tastes import taste_of
from backend.wording import msg
from db.models import Comparison, Response
from db.queries import desk as desk_queries
from db.session import Database
from trainer.prompting import personal_messages

_REMEMBERED = 256  # comparisons just made, for clicks that were on their way meanwhile
_USUAL_OF = 20
_AGAIN_TIMEOUT_S = 600.0
_WAITERS = 64  # of either kind; more than an engine usually writes at once
_MOVED_ON = msg("The model has learnt since this pair was made. Please skip it.")


class Maker:
    """Starts comparisons and stores them when they are complete.

    `under_way` is the registry; each ends by itself even when no page waits for it any more.
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
        directions: Mapping[str, int] = MappingProxyType({}),
        drafts: int = 1,
        shared: SharedPairs | None = None,
        repeats: Repeats | None = None,
        profile_of: Callable[[int], str] = lambda _user_id: "",
    ) -> None:
        """Begin with nothing under way.

        Args:
            styles: what pairs that differ are made in; with less than two there are none.
            directions: by style name, which of the engine's directions it is; styles are made
                along these then, under e₀. Empty: by wishes in the prompt, under e_u.
            drafts: of a personal response that is compared with another condition's, so many are
                written and the one that suits best is taken, unless somebody is watching.
        """
        self._database = database
        self._engine = engine
        self._profile_of = profile_of
        self._sampling = sampling
        self._shares = shares
        self._styles = styles
        self._directions = directions
        self._drafts = drafts
        self._shared = shared
        self._repeats = repeats
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._under_way: dict[int, list[Making]] = {}
        self._made: OrderedDict[int, Making] = OrderedDict()
        # What is made ahead may take long while people wait for other pairs: were it one pool, it
        # could hold all the threads, and what they wait for would be complete and not stored.
        self._waiters, self._patient_waiters = (
            ThreadPoolExecutor(_WAITERS, thread_name_prefix="making") for _ in range(2)
        )

    def start(self, user_id: int, prompt: PromptText, priority: Priority, *, shown: bool) -> Making:
        """Begin a comparison for `user_id`.

        Args:
            shown: the user watches it being made.

        Raises:
            Unavailable: the engine is closed. ValueError: the prompt does not fit the model.
        """
        taste = self._taste(user_id)
        plan = self._plan(user_id, prompt, taste)
        profile = self._profile_of(user_id)
        # A persona is shown a pair at once, but nobody watches it being written.
        watched = shown and priority is not Priority.SIMULATED
        sides = self._sides(plan, taste, watched=watched)
        requests = [
            self._request(user_id, prompt, profile, condition=condition, draft=draft)
            for condition, drafts in zip(plan.conditions, sides, strict=True)
            for draft in drafts
        ]
        try:
            generation = self._engine.generate(requests, priority)
        except EngineClosed as error:
            raise unavailable() from error
        making = Making(
            user_id,
            prompt,
            plan,
            generation,
            sides=sides,
            taste=taste,
            shown=shown,
            profile=profile,
        )
        awaited = priority is Priority.INTERACTIVE
        waiters = self._waiters if awaited else self._patient_waiters
        with self._lock:
            self._under_way.setdefault(user_id, []).append(making)
            making.stored = waiters.submit(self._finish, user_id, making)
        return making

    def write_again(
        self, user_id: int, prompt: PromptText, response: Response
    ) -> tuple[Generated, int]:
        """One side once more, made as it was but for its seed, which is returned too.

        Raises:
            Unavailable: the model failed. Conflict: the version that made it is not live any more.
        """
        style = next((style for style in self._styles if style.name == response.style), None)
        with self._lock:
            seed = draw_seed(self._rng)
        condition = Condition(response.condition)
        draft = Draft(style, seed)
        request = self._request(user_id, prompt, response.profile, condition=condition, draft=draft)
        try:
            (made,) = self._engine.generate([request]).result(_AGAIN_TIMEOUT_S)
        except (EngineFailed, EngineClosed, TimeoutError) as error:
            raise unavailable() from error
        if made.version_id != response.version_id:
            raise Conflict(_MOVED_ON)
        return made, seed

    def under_way(self, user_id: int) -> tuple[Making, ...]:
        """Comparisons being made for this user, oldest first."""
        with self._lock:
            return tuple(self._under_way.get(user_id, ()))

    def prompts_under_way(self, user_id: int) -> list[int]:
        """Ids of the prompts that are being answered for this user."""
        return [making.prompt.prompt_id for making in self.under_way(user_id)]

    def find(self, user_id: int, key: int) -> Making | None:
        """The user's comparison of that key, if it is being made or was a moment ago."""
        with self._lock:
            known = {making.key: making for making in self._under_way.get(user_id, ())}
            found = known.get(key) or self._made.get(key)
        return found if found is not None and found.user_id == user_id else None

    def close(self) -> None:
        """Wait for the last ones to end; the engine must have been closed before."""
        self._waiters.shutdown(wait=True)
        self._patient_waiters.shutdown(wait=True)

    def hand_over(self, user_id: int) -> bool:
        """Store a pair that needs no writing, not shown yet, if the user is to get one now.

        To begin with one that others judge too; later, now and then, an earlier one of their own.
        """
        live = self._engine.live_version
        if (
            self._shared is not None
            and live is not None
            and self._shared.hand_over(user_id, live.version_id, self.prompts_under_way(user_id))
        ):
            return True
        return self._repeats is not None and self._repeats.hand_over(user_id)

    def usual_seconds(self) -> float | None:
        """How long responses of the live version have taken lately; None when nobody knows."""
        live = self._engine.live_version
        if live is None:
            return None
        with self._database.read() as session:
            return desk_queries.usual_seconds(session, live.version_id, _USUAL_OF)

    def _request(
        self,
        user_id: int,
        prompt: PromptText,
        profile: str,
        *,
        condition: Condition,
        draft: Draft,
    ) -> GenerationRequest:
        messages = prompt.messages
        if condition is Condition.PERSONAL:
            messages = personal_messages(messages, profile)
        if not self._directions:
            messages = in_style(messages, draft.style)
        return GenerationRequest(
            messages=messages,
            condition=condition,
            user_id=user_id,
            sampling=replace(self._sampling, seed=draft.seed),
            style=self._directions.get(draft.style.name) if draft.style is not None else None,
        )

    def _taste(self, user_id: int) -> TasteModel:
        if not self._styles and self._drafts < 2:
            return STRANGER
        with self._database.read() as session:
            return taste_of(session, user_id)

    def _sides(
        self, plan: Plan, taste: TasteModel, *, watched: bool
    ) -> tuple[tuple[Draft, ...], tuple[Draft, ...]]:
        """The drafts of both sides; more than one only where there is a taste to choose by."""
        ranked = plan.purpose != "learn" and not watched and taste.choices > 0
        along = self._styles if self._directions else ()
        a, b = (
            draw_drafts(
                self._drafts if ranked and condition is Condition.PERSONAL else 1,
                seed,
                style,
                along,
                taste,
            )
            for condition, seed, style in zip(plan.conditions, plan.seeds, plan.styles, strict=True)
        )
        return a, b

    def _plan(self, user_id: int, prompt: PromptText, taste: TasteModel) -> Plan:
        if self._shared is not None and not prompt.own and self._shared.begins(user_id):
            with self._lock:
                return draw_shared_plan(self._rng, self._styles)
        styled = Condition.GENERIC if self._directions else Condition.PERSONAL
        with self._lock:
            return draw_plan(self._rng, self._shares, self._styles, taste, styled=styled)

    def _finish(self, user_id: int, making: Making) -> int:
        try:
            return self._store(user_id, making, making.generation.result())
        finally:
            self._drop(user_id, making)

    def _drop(self, user_id: int, making: Making) -> None:
        with self._lock:
            self._made[making.key] = making
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
            left = [other for other in self._under_way[user_id] if other is not making]
            if left:
                self._under_way[user_id] = left
            else:
                del self._under_way[user_id]

    def _store(self, user_id: int, making: Making, responses: Sequence[Generated]) -> int:
        now = self._clock()
        sides = making.chosen(responses)
        cut = making.stopped and not all(written.made.ended for written in sides)
        # What was erased while the responses were written is not recorded any more.
        profile = making.profile if self._profile_of(user_id) else ""
        with self._database.write() as session:
            comparison = Comparison(
                user_id=user_id,
                prompt_id=making.prompt.prompt_id,
                purpose=making.plan.purpose,
                continues_id=making.prompt.continues_id,
                created_at=now,
                shown_at=now if making.shown else None,
                stopped_at=now if cut else None,
            )
            session.add(comparison)
            session.flush()
            for side, condition, written in zip("AB", making.plan.conditions, sides, strict=True):
                row = self._row(comparison.id, side, condition, written)
                row.profile = profile if condition is Condition.PERSONAL else ""
                session.add(row)
        return comparison.id

    def _row(
        self, comparison_id: int, side: str, condition: Condition, written: Written
    ) -> Response:
        made, style = written.made, written.draft.style
        return Response(
            comparison_id=comparison_id,
            side=side,
            condition=condition.value,
            version_id=made.version_id,
            text=made.text,
            token_ids=list(made.token_ids),
            ended=made.ended,
            seed=written.draft.seed,
            style=style.name if style is not None else None,
            drafts=written.drafts,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_new_tokens=self._sampling.max_new_tokens,
            seconds=made.seconds,
        )
