"""APScheduler wiring: calls `Versions.follow` and `Training.tick` every few seconds. No logic.

`max_instances` and `coalesce` hold within one process only; across processes the lease decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

_log = logging.getLogger(__name__)


def start_scheduler(jobs: dict[str, Callable[[], None]], every_s: float) -> BackgroundScheduler:
    """Run each job every `every_s` seconds in its own turn; `shutdown()` the result to stop.

    A job that raises is logged and runs again at its next turn.
    """
    # APScheduler reports each run on INFO and each error on ERROR by itself; ours is enough.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler = BackgroundScheduler(timezone="UTC")
    for name, job in jobs.items():
        scheduler.add_job(
            job,
            "interval",
            seconds=every_s,
            id=name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    scheduler.add_listener(_report, EVENT_JOB_ERROR)
    scheduler.start()
    return scheduler


def _report(event: JobExecutionEvent) -> None:
    _log.error("the job %s failed and will run again: %s", event.job_id, event.exception)
