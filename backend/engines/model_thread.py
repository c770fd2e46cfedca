"""The one thread that runs the model: takes calls and scoring jobs, steps lanes in turn.

Knows nothing of tokenizers and artifacts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backend.engines.attention import use_one_token_attention, use_plain_attention
from backend.engines.base import EngineClosed, EngineFailed
from backend.engines.calls import Call, CallQueue, Unread
from backend.engines.calls import Row as CallRow
from backend.engines.captured import capture_on
from backend.engines.lanes import Lane
from backend.engines.static_batch import batches
from backend.engines.weights import Weights, WeightSets
from trainer.batching import Row
from trainer.decoding import check_cache
from trainer.scoring import check_head, response_logps

# What running a model may raise; anything else is a fault of ours and ends the thread, loudly.
_MODEL_ERRORS = (RuntimeError, ValueError, IndexError, ArithmeticError, MemoryError)
_SCORED_TOKENS_AT_ONCE = 2048
# Scoring gives way to responses that somebody waits for, but not for ever: choices are scored
# before a round may learn from them, and a busy afternoon must not stop the learning.
_SCORING_GIVES_WAY_S = 2.0
# Rows that nobody waits for get one token in so many turns while somebody waits for others, and
# one prompt is read for them: drafts have a dozen, which would hold up the others for seconds. Not
# none: where many people are at work somebody always waits, and pairs made ahead are what ends it.
_PATIENT_TURNS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A reading of the engine's counters, since its start.

    Attributes:
        tokens: generated, over all rows.
        steps: times a lane produced one token for each of its rows.
        running_rows, waiting_calls: at this moment.
        swaps: versions taken over.
        last_stall_s, max_stall_s: how long decoding stood still while other weights (another
            version's or the base model's) were put in place.
    """

    tokens: int = 0
    steps: int = 0
    running_rows: int = 0
    waiting_calls: int = 0
    swaps: int = 0
    last_stall_s: float = 0.0
    max_stall_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ScoreJob:
    """Responses to score under one prefix (P, H) or none; weights None: the base model's."""

    rows: Sequence[Row]
    prefix: Tensor | None
    weights: Weights | None
    future: Future[tuple[float, ...]]
    asked_s: float = field(default_factory=time.perf_counter)


class ModelThread:
    """Owns a model from construction to `close`; every method may be called from any thread."""

    def __init__(
        self, model: PreTrainedModel, *, max_rows: int, threads: int, capture: bool = True
    ) -> None:
        """Start the thread.

        Args:
            max_rows: run at once that somebody waits for, and as many that nobody waits for.

        Raises:
            ValueError: the model is of an unsupported kind.
        """
        check_cache(model)
        check_head(model)
        use_one_token_attention(model)
        self.weight_sets = WeightSets(model, rows=max_rows, threads=threads)
        self._new_batch = batches(model, capture_on(model.device) if capture else None)
        self._model = model
        self._threads = threads
        self._lanes: list[Lane] = []  # the thread's own
        self._turns = 0  # likewise
        self._unread = Unread()  # likewise
        self._reading: Call | None = None  # likewise
        self._wake = threading.Condition()  # guards what follows
        self._queue = CallQueue(max_rows)
        self._jobs: deque[ScoreJob] = deque()
        self._closing = False
        self._stats = EngineStats()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def put(self, work: Call | ScoreJob) -> None:
        """Queue work.

        Raises:
            EngineClosed.
        """
        with self._wake:
            self.check_open()
            if isinstance(work, Call):
                self._queue.put(work)
            else:
                self._jobs.append(work)
            self._wake.notify_all()

    @property
    def is_open(self) -> bool:
        """False after `close`, and after a fault that ended the thread. Does not wait."""
        return not self._closing

    def check_open(self) -> None:
        """Raise `EngineClosed` where the thread is not open any more."""
        if not self.is_open:
            raise _closed()

    def count_swap(self) -> None:
        with self._wake:
            self._stats = replace(self._stats, swaps=self._stats.swaps + 1)

    def stats(self) -> EngineStats:
        with self._wake:
            return replace(
                self._stats,
                running_rows=self._rows(someone_waits=True) + self._rows(someone_waits=False),
                waiting_calls=len(self._queue),
            )

    def close(self) -> None:
        """Stop after the current token and wait for the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._turn():
                    pass
        finally:
            self._end()

    def _turn(self) -> bool:
        """Start what fits, score once, a token for every row whose turn it is; False: closing."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            if self._closing:
                return False
            gone = self._queue.take_cancelled()
            job = self._next_job()
        for call in gone:
            call.close_all()
        if job is not None:
            self._score(job)
        self._turns += 1
        self._start_calls()
        patient = self._turns % _PATIENT_TURNS == 0 or not self._awaited
        for lane in self._lanes:
            if lane.someone_waits or patient:
                self._step(lane)
            else:
                lane.let_go()
        self._lanes = [lane for lane in self._lanes if len(lane)]
        return True

    def _has_work(self) -> bool:
        return bool(
            self._closing or self._jobs or len(self._queue) or self._lanes or len(self._unread)
        )

    @property
    def _awaited(self) -> bool:
        return any(lane.someone_waits for lane in self._lanes)

    def _next_job(self) -> ScoreJob | None:
        """The oldest scoring job, unless somebody waits for a response and it can wait too."""
        if not self._jobs:
            return None
        waited_s = time.perf_counter() - self._jobs[0].asked_s
        if (self._queue.someone_waits or self._awaited) and waited_s < _SCORING_GIVES_WAY_S:
            return None
        return self._jobs.popleft()

    def _start_calls(self) -> None:
        """Read the prompts of the calls there is room for.

        While somebody waits, of those that nobody waits for one prompt in each of their turns.
        """
        while self._any_unread() and (self._unread.awaited_rows or not self._awaited):
            self._read(*self._unread.take(whole=True))
        if len(self._unread) and self._turns % _PATIENT_TURNS == 0:
            self._read(*self._unread.take(whole=False))

    def _any_unread(self) -> bool:
        """Give the calls there is room for their places; whether there are prompts to read."""
        self._unread.let_go()
        with self._wake:
            while call := self._queue.take(
                self._rows(someone_waits=True), self._rows(someone_waits=False)
            ):
                call.start()
                self._unread.put(call)
        return len(self._unread) > 0

    def _rows(self, *, someone_waits: bool) -> int:
        """How many rows of this kind have a place."""
        awaited = self._unread.awaited_rows
        unread = awaited if someone_waits else len(self._unread) - awaited
        lanes = [lane for lane in self._lanes if lane.someone_waits is someone_waits]
        return unread + sum(len(lane) for lane in lanes)

    def _read(self, call: Call, rows: Sequence[CallRow]) -> None:
        """Let rows of one set of weights join their lane; a failure ends their call."""
        self._reading = call
        weights = self.weight_sets.base if rows[0].is_base else call.version.weights
        try:
            self._put_in_place(weights)
            self._lane(weights, call.someone_waits).admit(call, rows)
        except _MODEL_ERRORS as error:
            logger.exception("reading a prompt failed")
            call.generation.fail(_failed(error))
        self._reading = None

    def _lane(self, weights: Weights, someone_waits: bool) -> Lane:
        for lane in self._lanes:
            if lane.weights is weights and lane.someone_waits is someone_waits:
                return lane
        new_batch = partial(self._new_batch, frozenset(weights))
        lane = Lane(self._model, weights, self._count, new_batch, someone_waits=someone_waits)
        self._lanes.append(lane)
        return lane

    def _step(self, lane: Lane) -> None:
        """One token for every row of a lane; a failure ends its calls and nothing else."""
        try:
            self._put_in_place(lane.weights)
            lane.step()
        except _MODEL_ERRORS as error:
            logger.exception("decoding failed")
            for call in lane.drop_all():
                call.generation.fail(_failed(error))

    def _count(self, tokens: int) -> None:
        with self._wake:
            stats = self._stats
            self._stats = replace(stats, tokens=stats.tokens + tokens, steps=stats.steps + 1)

    def _score(self, job: ScoreJob) -> None:
        try:
            self._put_in_place(self.weight_sets.base if job.weights is None else job.weights)
            prefixes = [job.prefix] * len(job.rows)
            sums = response_logps(
                self._model, job.rows, prefixes, max_tokens=_SCORED_TOKENS_AT_ONCE
            )
            job.future.set_result(tuple(sums.tolist()))
        except _MODEL_ERRORS as error:
            logger.exception("scoring failed")
            job.future.set_exception(_failed(error))
        finally:
            if not job.future.done():
                job.future.set_exception(_closed())

    def _put_in_place(self, weights: Weights) -> None:
        started_s = time.perf_counter()
        if self.weight_sets.use(weights):
            stall_s = time.perf_counter() - started_s
            with self._wake:
                longest_s = max(self._stats.max_stall_s, stall_s)
                self._stats = replace(self._stats, last_stall_s=stall_s, max_stall_s=longest_s)

    def _end(self) -> None:
        """Nothing is left waiting for ever, however the thread came to its end."""
        with self._wake:
            self._closing = True
            calls = self._queue.take_all()
            jobs = list(self._jobs)
            self._jobs.clear()
        calls += self._unread.take_all()
        if self._reading is not None:
            calls.append(self._reading)
        for lane in self._lanes:
            calls += lane.drop_all()
        for call in calls:
            call.generation.fail(_closed())
        for job in jobs:
            job.future.set_exception(_closed())
        self.weight_sets.restore()
        use_plain_attention(self._model)


def _closed() -> EngineClosed:
    return EngineClosed("the engine was stopped")


def _failed(error: Exception) -> EngineFailed:
    return EngineFailed(f"{type(error).__name__}: {error}")
