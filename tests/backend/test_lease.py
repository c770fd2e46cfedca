"""One trainer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from backend.lease import LEASE_TTL, Lease, this_process
from db.session import Database
from tests.conftest import Clock


def test_one_holder_at_a_time_and_renewal_keeps_the_epoch(database: Database, clock: Clock) -> None:
    first, second = (Lease(database, f"other-host:{i}:0", clock=clock) for i in (1, 2))
    assert first.acquire() == 1
    assert second.acquire() is None
    clock.forward(seconds=20)
    assert first.acquire() == 1
    clock.forward(seconds=20)
    assert second.acquire() is None


def test_an_expired_lease_is_taken_over_with_a_higher_epoch(
    database: Database, clock: Clock
) -> None:
    first, second = (Lease(database, f"other-host:{i}:0", clock=clock) for i in (1, 2))
    assert first.acquire() == 1
    clock.forward(seconds=LEASE_TTL.total_seconds() + 1)
    assert second.acquire() == 2
    with database.write() as session:
        assert not first.holds(session, 1)
        assert second.holds(session, 2)
    assert first.acquire() is None


def test_a_released_lease_is_free_at_once(database: Database, clock: Clock) -> None:
    first, second = (Lease(database, f"other-host:{i}:0", clock=clock) for i in (1, 2))
    first.acquire()
    first.release()
    assert second.acquire() == 2


def test_a_dead_process_of_this_host_does_not_hold_the_lease(
    database: Database, clock: Clock
) -> None:
    place = this_process().split(":", maxsplit=1)[0]
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert Lease(database, f"{place}:{child.pid}:5a", clock=clock).acquire() == 1
    mine = Lease(database, this_process(), clock=clock)
    assert mine.acquire() is None
    child.communicate()
    assert mine.acquire() == 2


def test_an_id_that_is_ours_now_was_a_dead_ones_before(database: Database, clock: Clock) -> None:
    place = this_process().split(":", maxsplit=1)[0]
    assert Lease(database, f"{place}:{os.getpid()}:before", clock=clock).acquire() == 1
    assert Lease(database, this_process(), clock=clock).acquire() == 2


@pytest.mark.parametrize("elsewhere", ["other-host/{space}", "{host}/other-space", "{host}"])
def test_who_cannot_be_seen_from_here_is_not_taken_for_dead(
    database: Database, clock: Clock, elsewhere: str
) -> None:
    host, space = this_process().split(":", maxsplit=1)[0].split("/")
    holder = f"{elsewhere.format(host=host, space=space)}:{_free_id()}:5a"
    assert Lease(database, holder, clock=clock).acquire() == 1
    assert Lease(database, this_process(), clock=clock).acquire() is None


def test_a_lease_from_before_the_clock_was_set_back_is_free(
    database: Database, clock: Clock
) -> None:
    first, second = (Lease(database, f"other-host:{i}:0", clock=clock) for i in (1, 2))
    assert first.acquire() == 1
    clock.forward(seconds=-20)  # as far apart as two machines may be
    assert second.acquire() is None
    clock.forward(days=-1)
    assert second.acquire() == 2


def _free_id() -> int:
    """A process id that nobody has."""
    return next(number for number in range(2**22, 1, -1) if not psutil.pid_exists(number))


def test_a_race_has_one_winner(database: Database, clock: Clock) -> None:
    leases = [Lease(database, f"other-host:{i}:0", clock=clock) for i in range(6)]
    leases[0].acquire()
    clock.forward(seconds=LEASE_TTL.total_seconds() + 1)
    won: list[int | None] = []
    threads = [threading.Thread(target=lambda x=x: won.append(x.acquire())) for x in leases[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epoch for epoch in won if epoch is not None) == [2]
