"""One round: lease, choices → pairs, run, gate, promote. The engine follows through `Versions`.

Whatever goes wrong, the round row says why, the old version stays live and its choices stay
unconsumed. Knows nothing of schedules and of torch.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend import round_input, selection, user_tastes
from backend.errors import Conflict
from backend.lease import Lease
from backend.round_input import RoundInput, RoundLimits
from backend.selection import Candidate
from backend.styles import Style
from backend.versions import Versions
from db.models import Round
from db.queries import erasure as erasure_queries
from db.queries import rounds as queries
from db.session import Database
from trainer.config import TrainConfig
from trainer.types import (
    Progress,
    RoundFailed,
    RoundKind,
    RoundRequest,
    RoundResult,
    StyleShares,
)

_log = logging.getLogger(__name__)
_MOST_NEW_USERS = 8  # in one vector round, which is to stay short
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LOST = "the process that ran this round ended before the round did"


class Trainer(Protocol):
    """What runs a round: the trainer process."""

    def run(
        self, request: RoundRequest, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> RoundResult:
        """Raises RoundFailed."""


class Training:
    """Decides when a round is due and takes it from choices to a promoted version."""

    def __init__(
        self,
        database: Database,
        trainer: Trainer,
        versions: Versions,
        lease: Lease,
        *,
        identity: str,
        config: TrainConfig,
        limits: RoundLimits,
        min_choices: int,
        max_wait: timedelta,
        timeout_s: float,
        clock: Callable[[], datetime],
        score_wait: timedelta = timedelta(0),
        fast_choices: int = 0,
        styles: Sequence[Style] = (),
    ) -> None:
        """Begin idle.

        Args:
            max_wait: a round is due with fewer choices once the oldest has waited so long.
            score_wait: how long a pair waits for its prequential score; 0 where nothing scores.
            fast_choices: a new user's vector is trained alone after so many choices; 0 is never.
            styles: whose shares the styled user model is told; not needed by others.
        """
        self._database = database
        self._trainer = trainer
        self._versions = versions
        self._lease = lease
        self._identity = identity
        self._config = config
        self._limits = limits
        self._min_choices = min_choices
        self._max_wait = max_wait
        self._timeout_s = timeout_s
        self._clock = clock
        self._score_wait = score_wait
        self._fast_choices = fast_choices
        self._styles = styles
        self._began_at = clock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="round")
        self._running: Future[None] | None = None

    def tick(self) -> None:
        """Renew the lease and start a round if one is due; returns at once."""
        epoch = self._lease.acquire()
        if epoch is None or (self._running is not None and not self._running.done()):
            return
        self._bury_lost_rounds(epoch)
        # From an older version a round would undo for everybody what the live one has learnt.
        if not self._versions.serves_live():
            return
        with self._database.read() as session:
            waiting = round_input.waiting(session, self._identity, self._unscored_until())
            due = self._is_due(session, waiting)
            users = () if due else self._new_users(session, waiting)
        if due or users:
            self._start(epoch, users)

    def train_now(self) -> None:
        """Make a round due at the next tick, whatever the counts.

        Raises:
            Conflict: no choice is waiting that could be learnt from, or no trainer runs.
        """
        with self._database.write() as session:
            if not selection.teaches(round_input.waiting(session, self._identity)):
                raise Conflict("There is no new choice to learn from.")
            lease = queries.lock_lease(session)
            if lease is None or lease.expires_at <= self._clock():
                raise Conflict("No trainer is running.")
            lease.asked_at = self._clock()

    def wait(self, timeout_s: float) -> None:
        """Wait for the round under way, if any. Raises TimeoutError."""
        if self._running is not None:
            self._running.result(timeout_s)

    def close(self) -> None:
        """Wait for the round thread and let the lease go; the trainer must have been closed."""
        self._pool.shutdown(wait=True)
        self._lease.release()

    def _start(self, epoch: int, users: tuple[int, ...]) -> None:
        self._running = self._pool.submit(self._round, epoch, users)
        self._running.add_done_callback(_log_escaped)

    def _bury_lost_rounds(self, epoch: int) -> None:
        # A round of our own epoch cannot be running here: `tick` returned if it were.
        with self._database.write() as session:
            queries.fail_running(session, epoch + 1, _LOST, self._clock())

    def _is_due(self, session: Session, waiting: Sequence[Candidate]) -> bool:
        lease = queries.lease(session)
        if lease is not None and lease.asked_at is not None:
            return selection.teaches(waiting)
        failures, last_failure = queries.failures_since_success(session, "full")
        return selection.is_due(
            waiting,
            now=self._clock(),
            min_choices=self._min_choices,
            max_wait=self._max_wait,
            failures=failures,
            last_failure=last_failure,
        )

    def _new_users(self, session: Session, waiting: Sequence[Candidate]) -> tuple[int, ...]:
        """Whose vector alone to train before the next full round; nobody: no such round is due."""
        ready = partial(selection.new_users, waiting, choices=self._fast_choices)
        if not ready(served=(), limit=1):  # as a rule; who is served takes a look at every round
            return ()
        failures, last_failure = queries.failures_since_success(session, "vector")
        if selection.backs_off(self._clock(), failures, last_failure):
            return ()
        served = queries.vector_served(session, self._identity)
        return ready(served=served, limit=_MOST_NEW_USERS)

    def _unscored_until(self) -> datetime:
        """Pairs chosen up to here may be trained on unscored: whatever keeps the score away (too
        long for the model, a failing one) must not keep the choice from being learnt.

        After a start nothing is let through for a while: what piled up is scored first.
        """
        now = self._clock()
        return now - self._score_wait if now - self._began_at >= self._score_wait else _LONG_AGO

    def _round(self, epoch: int, users: tuple[int, ...]) -> None:
        """One round, whole: a full one, or a vector round of `users`.

        The job boundary: every failure ends in the round's row, or in the log.
        """
        request = self._begin(epoch, users)
        try:
            # After the transaction: taste models take a while, and nobody could choose meanwhile.
            request = replace(request, style_shares=self._style_shares(request))
            result = self._trainer.run(request, self._reporter(request.round_id), self._timeout_s)
            self._finish(request, result, epoch)
        except RoundFailed as error:
            self._fail(request, str(error))
        except Exception as error:  # noqa: BLE001 — the one broad catch: nothing may stay `running`
            _log.exception("round %s failed", request.round_id)
            self._fail(request, f"unexpected {type(error).__name__}: {error}")
        else:
            self._versions.follow()

    def _begin(self, epoch: int, users: tuple[int, ...]) -> RoundRequest:
        kind: RoundKind = "vector" if users else "full"
        with self._database.write() as session:
            live = self._versions.live(session)
            assert live is not None  # it was served a moment ago
            lease = queries.lock_lease(session)
            if lease is not None and kind == "full":
                lease.asked_at = None
            row = Round(
                status="running",
                kind=kind,
                lease_epoch=epoch,
                parent_id=live.id,
                config=self._config.to_json(),
                started_at=self._clock(),
            )
            session.add(row)
            session.flush()
            config = replace(self._config, seed=row.id)
            gathered = self._gather(session, row.id, users)
            session.add_all(gathered.round_pairs(row.id))
            row.config = config.to_json()
            # Named before it is there: whatever becomes of this process, erasing finds it. After a
            # backup was put back, later rounds' directories may be there still.
            row.artifact = self._versions.free_name(f"round-{row.id:06d}")
            return RoundRequest(
                round_id=row.id,
                pairs=gathered.pairs,
                held_out=gathered.held_out,
                probe_prompts=gathered.probe_prompts,
                parent=str(self._versions.path_of(live.artifact).absolute()),
                output=str(self._versions.path_of(row.artifact).absolute()),
                config=config,
                kind=kind,
            )

    def _gather(self, session: Session, round_id: int, users: tuple[int, ...]) -> RoundInput:
        probe_prompts, until = self._config.gate.probe_prompts, self._unscored_until()
        if users:
            return round_input.gather_vector(
                session,
                self._identity,
                self._limits,
                probe_prompts,
                users=users,
                unscored_until=until,
            )
        rng = random.Random(round_id)  # noqa: S311 — reproducible replay, no secret
        return round_input.gather(
            session, self._identity, self._limits, probe_prompts, rng, unscored_until=until
        )

    def _style_shares(self, request: RoundRequest) -> dict[int, StyleShares]:
        if self._config.user_model != "styled":
            return {}
        learning = {pair.user_id for pair in request.pairs}
        until = self._unscored_until()
        with self._database.read() as session:
            return user_tastes.shares_for_round(session, self._styles, learning, until)

    def _reporter(self, round_id: int) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            try:
                with self._database.write() as session:
                    row = session.get_one(Round, round_id)
                    row.progress = asdict(progress)
                    if progress.figures:
                        row.curve = [*(row.curve or []), progress.figures]
            except SQLAlchemyError as error:  # the finished round brings the whole curve
                _log.warning("a step of round %s is not shown: %s", round_id, error)

        return report

    def _finish(self, request: RoundRequest, result: RoundResult, epoch: int) -> None:
        """Store what the round reports; promote it in the same transaction if it may go live."""
        with self._database.write() as session:
            row = session.get_one(Round, request.round_id)
            if not self._lease.holds(session, epoch) or row.status != "running":
                raise RoundFailed("another process took over training while this round ran")
            row.curve = list(result.curve)
            # Under the lease's lock, as erasing is: who was erased meanwhile is seen here.
            erased = erasure_queries.erased_ids(session)
            row.gate = erasure_queries.without_samples(asdict(result.gate), erased)
            row.train_s = result.train_s
            row.progress = None
            row.ended_at = self._clock()
            round_input.store_reference(session, self._identity, result.reference_logps_nats)
            live = self._versions.live(session)
            if live is None or live.id != row.parent_id:
                raise RoundFailed("the live version was changed while this round ran")
            if not result.gate.passed:
                row.status, row.reason = "refused", " ".join(result.gate.reasons)
                _log.warning("round %s is refused: %s", row.id, row.reason)
                return
            row.status = "promoted"
            assert row.artifact is not None  # named when it began; erasing may have renamed it
            version = self._versions.promote(
                session, row.artifact, self._identity, cause="round", round_id=row.id
            )
            _log.info("round %s is version %s", row.id, version.id)

    def _fail(self, request: RoundRequest, reason: str) -> None:
        _log.warning("round %s failed: %s", request.round_id, reason)
        with self._database.write() as session:
            row = session.get_one(Round, request.round_id)
            if row.status in ("promoted", "refused"):  # stored, although that was not heard
                return
            row.status, row.reason, row.ended_at = "failed", reason, self._clock()
            row.progress = None
        shutil.rmtree(request.output, ignore_errors=True)


def _log_escaped(ended: Future[None]) -> None:
    """Log what a round raised: nobody else reads its future."""
    error = ended.exception()
    if error is not None:
        _log.error("a round could not be begun, stored or served", exc_info=error)
