"""Bookkeeping of the local engine: calls waiting, and rows with the tokens they have so far.

Does no arithmetic and runs no model (`decoding.py` does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backend.engines.base import Condition, Generated, GenerationRequest, Priority
from backend.engines.generation import RunningGeneration
from backend.engines.versions import LoadedVersion
from trainer.prompting import EncodedPrompt

_UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character


@dataclass(slots=True, kw_only=True)
class Row:
    """One response being made.

    Attributes:
        request: what was asked for.
        prompt: its token ids under the call's version.
        decode: token ids → text without special tokens.
        stop_ids: token ids that end a response.
        token_ids: the response so far.
        made: the finished response.
    """

    request: GenerationRequest
    prompt: EncodedPrompt
    decode: Callable[[Sequence[int]], str]
    stop_ids: frozenset[int]
    token_ids: list[int] = field(default_factory=list)
    made: Generated | None = None

    @property
    def is_base(self) -> bool:
        return self.request.condition is Condition.BASE

    @property
    def prompt_key(self) -> tuple[object, ...]:
        """Equal for rows of one call that read the same prompt with the same user vector."""
        personal = self.request.condition is Condition.PERSONAL
        user = self.request.user_id if personal else None
        return (self.request.condition, user, self.request.style, self.prompt.token_ids)

    @property
    def ended(self) -> bool:
        return bool(self.token_ids) and self.token_ids[-1] in self.stop_ids

    @property
    def complete(self) -> bool:
        return self.ended or len(self.token_ids) >= self.request.sampling.max_new_tokens

    @property
    def text(self) -> str:
        """The text so far; only ever grows, so an unfinished character and blanks wait."""
        if self.made is not None:
            return self.made.text
        return self.decode(self.token_ids).rstrip(_UNFINISHED).strip()


class Call:
    """The rows of one `generate` call: they share a version and finish together."""

    def __init__(
        self, rows: Sequence[Row], version: LoadedVersion, priority: Priority, number: int
    ) -> None:
        self.rows = tuple(rows)
        self.generation = RunningGeneration(len(rows))
        self.order = (priority, number)
        self.version = version
        self._started_s: float | None = None

    @property
    def someone_waits(self) -> bool:
        return self.order[0] is Priority.INTERACTIVE

    def start(self) -> None:
        self._started_s = time.perf_counter()

    def close_row(self, row: Row) -> None:
        """`row` will get no more tokens; the last one finishes the call."""
        now_s = time.perf_counter()
        row.made = Generated(
            text=row.decode(row.token_ids).strip(),
            token_ids=tuple(row.token_ids),
            ended=row.ended,
            version_id=self.version.ref.version_id,
            seconds=0.0 if self._started_s is None else now_s - self._started_s,
        )
        made = [row.made for row in self.rows if row.made is not None]
        if len(made) == len(self.rows):
            self.generation.finish(made)

    def close_all(self) -> None:
        """End with what there is."""
        for row in self.rows:
            if row.made is None:
                self.close_row(row)

    def show(self) -> None:
        """Hand the texts as they stand to whoever streams."""
        self.generation.show([row.text for row in self.rows])


class CallQueue:
    """Calls waiting for room, the most urgent first; among equals the oldest."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        # Work that nobody waits for leaves room for one pair that somebody waits for.
        self._max_patient_rows = max(2, max_rows - 2)
        self._waiting: list[Call] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def someone_waits(self) -> bool:
        return any(call.someone_waits for call in self._waiting)

    def put(self, call: Call) -> None:
        self._waiting.append(call)
        self._waiting.sort(key=lambda waiting: waiting.order)

    def take(self, running_rows: int) -> Call | None:
        """Remove and return the first call if it fits beside `running_rows`; none overtakes it.

        A call larger than the limit runs alone.
        """
        if not self._waiting:
            return None
        head = self._waiting[0]
        limit = self._max_rows if head.someone_waits else self._max_patient_rows
        if running_rows and running_rows + len(head.rows) > limit:
            return None
        return self._waiting.pop(0)

    def take_cancelled(self) -> list[Call]:
        """Remove and return the calls nobody wants any more."""
        gone = [call for call in self._waiting if call.generation.cancelled]
        self._waiting = [call for call in self._waiting if not call.generation.cancelled]
        return gone

    def take_all(self) -> list[Call]:
        taken, self._waiting = self._waiting, []
        return taken
