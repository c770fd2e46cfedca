"""When a round is due and which choices it takes."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backend.selection import Candidate, is_due, new_users, pick_new, pick_replay, use_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _candidates(count: int, user: int = 1, use: str = "new", start: int = 0) -> list[Candidate]:
    return [Candidate(start + i, user, NOW - timedelta(seconds=100 - i), use) for i in range(count)]


def _due(
    waiting: list[Candidate],
    now: datetime = NOW,
    failures: int = 0,
    last_failure: datetime | None = None,
) -> bool:
    return is_due(
        waiting,
        now=now,
        min_choices=10,
        max_wait=timedelta(minutes=30),
        failures=failures,
        last_failure=last_failure,
    )


def test_use_follows_verdict_and_purpose() -> None:
    assert use_of("a", "learn") == "new"
    assert use_of("b", "base") == "new"
    assert use_of("b", "blind") == "held_out"
    assert use_of("tie", "blind") == use_of("both_bad", "learn") == "no_pair"


def test_due_with_enough_choices_and_not_with_fewer() -> None:
    assert _due(_candidates(10))
    assert not _due(_candidates(9))


def test_blind_and_tied_choices_count_but_cannot_start_a_round_alone() -> None:
    blind = _candidates(9, use="held_out", start=100)
    assert _due([*blind, *_candidates(1)])
    assert not _due([*blind, *_candidates(5, use="no_pair", start=200)])


def test_due_when_the_oldest_has_waited_long_enough() -> None:
    assert not _due(_candidates(1), now=NOW + timedelta(minutes=28))
    assert _due(_candidates(1), now=NOW + timedelta(minutes=30))


def test_a_failed_round_is_tried_again_later_and_later() -> None:
    waiting = _candidates(10)
    assert not _due(waiting, failures=1, last_failure=NOW - timedelta(seconds=14))
    assert _due(waiting, failures=1, last_failure=NOW - timedelta(seconds=15))
    assert not _due(waiting, failures=3, last_failure=NOW - timedelta(seconds=59))
    assert _due(waiting, failures=3, last_failure=NOW - timedelta(seconds=60))
    assert _due(waiting, failures=50, last_failure=NOW - timedelta(hours=1))
    # The clock was set back since.
    assert _due(waiting, failures=3, last_failure=NOW + timedelta(hours=1))


def test_a_new_user_is_ready_with_enough_pairs_whoever_chose_first_in_front() -> None:
    waiting = [
        *_candidates(3, user=7),
        *_candidates(2, user=1, start=50),
        *_candidates(2, user=1, use="held_out", start=60),
        *_candidates(5, user=2, start=70),
        *_candidates(5, user=3, start=80),
    ]
    assert new_users(waiting, choices=3, served=(), limit=9) == (7, 2, 3)
    assert new_users(waiting, choices=3, served={2}, limit=9) == (7, 3)
    assert new_users(waiting, choices=3, served=(), limit=2) == (7, 2)
    assert new_users(waiting, choices=2, served=(), limit=9) == (7, 1, 2, 3)


def test_no_user_is_ready_where_vector_rounds_are_off() -> None:
    assert new_users(_candidates(9), choices=0, served=(), limit=9) == ()


def test_new_pairs_are_capped_in_all_and_per_user() -> None:
    waiting = [*_candidates(5, user=1), *_candidates(5, user=2, start=50)]
    picked = pick_new(waiting, limit=6, user_cap=4)
    assert Counter(c.user_id for c in picked) == {1: 4, 2: 2}
    assert [c.choice_id for c in picked] == [0, 1, 2, 3, 50, 51]


def test_choices_without_a_pair_ride_along_beyond_the_limit() -> None:
    waiting = [*_candidates(3), *_candidates(2, use="no_pair", start=50)]
    assert len(pick_new(waiting, limit=1, user_cap=9)) == 3


def _replay(
    used: list[Candidate], picked: list[Candidate], limit: int, cap: int
) -> list[Candidate]:
    last = {1: NOW - timedelta(days=1), 2: NOW - timedelta(days=9), 3: NOW - timedelta(days=3)}
    return pick_replay(
        used, picked, limit=limit, user_cap=cap, last_trained=last, rng=random.Random(1)
    )


def test_replay_takes_the_longest_forgotten_user_first_and_everyone_in_turn() -> None:
    used = [c for user in (1, 2, 3) for c in _candidates(4, user=user, start=user * 10)]
    assert [c.user_id for c in _replay(used, [], limit=4, cap=9)] == [2, 3, 1, 2]


@given(
    sizes=st.lists(st.integers(0, 8), min_size=3, max_size=3),
    new=st.integers(0, 6),
    limit=st.integers(0, 30),
    cap=st.integers(1, 8),
)
def test_replay_keeps_limit_and_cap_and_never_repeats(
    sizes: list[int], new: int, limit: int, cap: int
) -> None:
    used = [
        c
        for user, n in zip((1, 2, 3), sizes, strict=True)
        for c in _candidates(n, user, "replay", user * 100)
    ]
    picked = pick_new(_candidates(new, user=1), limit=99, user_cap=cap)
    replay = _replay(used, picked, limit, cap)
    assert len(replay) <= limit
    assert len({c.choice_id for c in replay}) == len(replay)
    totals = Counter(c.user_id for c in (*picked, *replay))
    assert all(count <= cap for count in totals.values())
    room = sum(
        min(n, cap - sum(c.user_id == user for c in picked))
        for user, n in zip((1, 2, 3), sizes, strict=True)
    )
    assert len(replay) == min(limit, room)
