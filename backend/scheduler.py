"""APScheduler wiring: runs jobs at intervals. No logic.

`max_instances` and `coalesce` hold within one process only; across processes the lease decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What is done every `every_s` seconds."""

    name: str
    run: Callable[[], None]
    every_s: float


def start_scheduler(jobs: Sequence[Job]) -> BackgroundScheduler:
    """Run each job at its interval, never twice at once; `shutdown()` the result to stop.

    A job that raises is logged and runs again at its next turn.
    """
    # APScheduler reports each run on INFO and each error on ERROR by itself; ours is enough.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler = BackgroundScheduler(timezone="UTC")
    for job in jobs:
        scheduler.add_job(
            job.run,
            "interval",
            seconds=job.every_s,
            id=job.name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    scheduler.add_listener(_report, EVENT_JOB_ERROR)
    scheduler.start()
    return scheduler


def _report(event: JobExecutionEvent) -> None:
    _log.error("the job %s failed and will run again: %s", event.job_id, event.exception)
