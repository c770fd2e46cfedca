"""One prompt answered twice, for everyone and for you: to look at, not to choose from.

Nothing is stored: no prompt, no response, no choice. Gives way to pairs that somebody judges.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from backend import prompts
from backend.engines.base import (
    Condition,
    Engine,
    EngineClosed,
    EngineFailed,
    Generation,
    GenerationRequest,
    Message,
    Priority,
    Sampling,
)
from backend.errors import InvalidInput
from backend.evidence import vector_holders
from backend.plans import draw_seed
from backend.under_way import unavailable
from backend.wording import msg
from db.queries import evidence as queries
from db.session import Database
from trainer.prompting import personal_messages

_TOO_LONG = msg("That is too long for this model. Please shorten it.")


@dataclass(frozen=True, slots=True)
class Tried:
    """Both answers as far as they are written.

    Attributes:
        known: the personal one differs in more than its name: there is a vector or a profile.
        complete: both are final.
    """

    generic: str
    personal: str
    known: bool
    complete: bool


class Trials:
    """Answers a user's prompt under both conditions; one prompt per user at a time."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        *,
        sampling: Sampling,
        max_prompt_chars: int,
        rng: random.Random,
        profile_of: Callable[[int], str],
    ) -> None:
        self._database = database
        self._engine = engine
        self._sampling = sampling
        self._max_prompt_chars = max_prompt_chars
        self._rng = rng
        self._profile_of = profile_of
        self._lock = threading.Lock()
        self._running: dict[int, Generation] = {}

    def ask(self, user_id: int, text: str) -> Iterator[Tried]:
        """Both answers, growing; the last one is complete. An earlier prompt of theirs is stopped.

        Raises:
            InvalidInput: empty or too long. Unavailable: the model failed.
        """
        checked = prompts.checked_own_text(text, self._max_prompt_chars)
        messages: tuple[Message, ...] = ({"role": "user", "content": checked},)
        profile = self._profile_of(user_id)
        # The same draw for both, so that what differs is not chance alone.
        sampling = replace(self._sampling, seed=draw_seed(self._rng))
        requests = (
            _request(messages, Condition.GENERIC, user_id, sampling),
            _request(personal_messages(messages, profile), Condition.PERSONAL, user_id, sampling),
        )
        try:
            generation = self._engine.generate(requests, Priority.PREFETCH)
        except EngineClosed as error:
            raise unavailable() from error
        except ValueError as error:
            raise InvalidInput(_TOO_LONG) from error
        live = self._engine.live_version
        known = bool(profile) or (live is not None and self._has_vector(user_id, live.version_id))
        yield from self._watch(user_id, generation, known)

    def _watch(self, user_id: int, generation: Generation, known: bool) -> Iterator[Tried]:
        with self._lock:
            earlier = self._running.get(user_id)
            self._running[user_id] = generation
        if earlier is not None:
            earlier.cancel()
        generic = personal = ""
        try:
            for generic, personal in generation.stream():
                yield Tried(generic, personal, known, complete=False)
            yield Tried(generic, personal, known, complete=True)
        except (EngineFailed, EngineClosed) as error:
            raise unavailable() from error
        finally:
            generation.cancel()  # the page was left before the end; else it has ended
            with self._lock:
                if self._running.get(user_id) is generation:
                    del self._running[user_id]

    def _has_vector(self, user_id: int, version_id: int) -> bool:
        with self._database.read() as session:
            trained = queries.users_trained(session, user_id)
            holders = vector_holders(queries.lineage(session), trained)
        return user_id in holders.get(version_id, ())


def _request(
    messages: tuple[Message, ...], condition: Condition, user_id: int, sampling: Sampling
) -> GenerationRequest:
    return GenerationRequest(
        messages=messages, condition=condition, user_id=user_id, sampling=sampling
    )
