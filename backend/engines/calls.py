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
        self.passed_rows = 0  # of calls that were let past it while it waited for room
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
    """Calls waiting for room, the most urgent first; among equals the oldest.

    There is room for `max_rows` rows that somebody waits for, and for as many that nobody waits
    for. They decode in lanes of their own, so neither take the others' places; in all, twice
    `max_rows` run at most.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._waiting: list[Call] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def someone_waits(self) -> bool:
        return any(call.someone_waits for call in self._waiting)

    def put(self, call: Call) -> None:
        self._waiting.append(call)
        self._waiting.sort(key=lambda waiting: waiting.order)

    def take(self, awaited_rows: int, patient_rows: int) -> Call | None:
        """Remove and return the next call that fits beside the rows of its kind that run.

        A call larger than the limit runs alone among its kind. None overtakes one that somebody
        waits for. One that nobody waits for and that does not fit yet, such as one of many drafts,
        is passed by smaller ones of its priority, but by no more rows than run at once: then those
        that run come to their end, and it starts.
        """
        for someone_waits, running in ((True, awaited_rows), (False, patient_rows)):
            calls = [call for call in self._waiting if call.someone_waits is someone_waits]
            call = self._next(calls, running)
            if call is not None:
                self._waiting.remove(call)
                return call
        return None

    def _next(self, calls: Sequence[Call], running: int) -> Call | None:
        if not calls:
            return None
        head, *behind = calls
        if self._fits(head, running):
            return head
        if head.someone_waits:
            return None
        for call in behind:
            same = call.order[0] is head.order[0]
            passed = head.passed_rows + len(call.rows)
            if same and passed <= self._max_rows and self._fits(call, running):
                head.passed_rows = passed
                return call
        return None

    def _fits(self, call: Call, running: int) -> bool:
        return not running or running + len(call.rows) <= self._max_rows

    def take_cancelled(self) -> list[Call]:
        """Remove and return the calls nobody wants any more."""
        gone = [call for call in self._waiting if call.generation.cancelled]
        self._waiting = [call for call in self._waiting if not call.generation.cancelled]
        return gone

    def take_all(self) -> list[Call]:
        taken, self._waiting = self._waiting, []
        return taken


class Unread:
    """Rows that have a place and whose prompts are still to be read, the most urgent first."""

    def __init__(self) -> None:
        # Each: rows of one call that are read under the same weights.
        self._parts: list[tuple[Call, list[Row]]] = []

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._parts)

    @property
    def awaited_rows(self) -> int:
        return sum(len(rows) for call, rows in self._parts if call.someone_waits)

    def put(self, call: Call) -> None:
        for is_base in (False, True):
            rows = [row for row in call.rows if row.is_base is is_base]
            if rows:
                self._parts.append((call, rows))
        self._parts.sort(key=lambda part: part[0].order)

    def take(self, *, whole: bool) -> tuple[Call, list[Row]]:
        """Remove and return the first rows: all under the same weights, or those of one prompt."""
        call, rows = self._parts.pop(0)
        key = rows[0].prompt_key
        left = [row for row in rows if not whole and row.prompt_key != key]
        if left:
            self._parts.insert(0, (call, left))
        return call, [row for row in rows if whole or row.prompt_key == key]

    def let_go(self) -> None:
        """Rows whose call was cancelled, or failed elsewhere, leave without a token."""
        wanted = []
        for call, rows in self._parts:
            if not (call.generation.cancelled or call.generation.over):
                wanted.append((call, rows))
                continue
            for row in rows:
                call.close_row(row)
        self._parts = wanted

    def take_all(self) -> list[Call]:
        """Remove every row; the calls they belonged to."""
        parts, self._parts = self._parts, []
        return [call for call, _ in parts]
