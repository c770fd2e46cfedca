"""One trainer at a time."""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil

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
    host = this_process().split(":", maxsplit=1)[0]
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(child.pid).create_time()
    assert Lease(database, f"{host}:{child.pid}:{started:.2f}", clock=clock).acquire() == 1
    mine = Lease(database, this_process(), clock=clock)
    assert mine.acquire() is None
    child.communicate()
    assert mine.acquire() == 2


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
