"""Which choices a round trains on, and when one is due. Pure: no database, no clock, no model."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_LONGEST_BACKOFF_DOUBLINGS = 6
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A choice as selection sees it.

    Attributes:
        use: `new` (a pair to learn from), `held_out` (blind, never trained on) or `no_pair`.
    """

    choice_id: int
    user_id: int
    chosen_at: datetime
    use: str


def use_of(verdict: str, purpose: str) -> str:
    """What a round may do with a choice of this verdict on a comparison of this purpose.

    A repeat is counted, so that the countdown does not tell it apart, and never trained on.
    """
    if verdict not in ("a", "b") or purpose == "repeat":
        return "no_pair"
    return "held_out" if purpose == "blind" else "new"


def teaches(waiting: Sequence[Candidate]) -> bool:
    """Whether there is anything to learn from: ties and blind pairs alone make no round."""
    return any(candidate.use == "new" for candidate in waiting)


def is_due(
    waiting: Sequence[Candidate],
    *,
    now: datetime,
    min_choices: int,
    max_wait: timedelta,
    failures: int,
    last_failure: datetime | None,
) -> bool:
    """Whether a round should start: enough new choices, or the oldest has waited long enough.

    After a failed or refused round the next try waits, twice as long each time (from 15 s), so
    that choices that cannot be learnt do not keep the machine busy.
    """
    if not teaches(waiting):
        return False
    if backs_off(now, failures, last_failure):
        return False
    oldest = min(candidate.chosen_at for candidate in waiting)
    return len(waiting) >= min_choices or now - oldest >= max_wait


def backs_off(now: datetime, failures: int, last_failure: datetime | None) -> bool:
    """Whether it is too early to try again after `failures` rounds in a row that came to nothing.

    The wait begins at 15 s and doubles with each, up to 16 minutes.
    """
    if not failures or last_failure is None:
        return False
    doublings = min(failures - 1, _LONGEST_BACKOFF_DOUBLINGS)
    since = now - last_failure
    # Not for as long as a clock that was set back would say.
    return timedelta(0) <= since < timedelta(seconds=15 * 2**doublings)


def new_users(
    waiting: Sequence[Candidate], *, choices: int, served: Collection[int], limit: int
) -> tuple[int, ...]:
    """Users whose vector a vector round should train now, whoever chose first in front.

    Args:
        choices: so many waiting pairs make a user ready; 0 means nobody ever is.
        served: users who have had what a new user gets.
        limit: at most so many users in one round.
    """
    pairs = Counter(c.user_id for c in waiting if c.use == "new" and c.user_id not in served)
    return tuple(user for user, count in pairs.items() if 0 < choices <= count)[:limit]


def pick_new(waiting: Sequence[Candidate], *, limit: int, user_cap: int) -> list[Candidate]:
    """The choices a round consumes, oldest first: at most `limit` pairs, `user_cap` per user.

    Choices that make no training pair ride along; they cost nothing.
    """
    per_user: Counter[int] = Counter()
    picked = []
    pairs = 0
    for candidate in waiting:
        if candidate.use == "new":
            if pairs == limit or per_user[candidate.user_id] == user_cap:
                continue
            pairs += 1
            per_user[candidate.user_id] += 1
        picked.append(candidate)
    return picked


def pick_replay(
    used: Sequence[Candidate],
    picked: Sequence[Candidate],
    *,
    limit: int,
    user_cap: int,
    last_trained: Mapping[int, datetime],
    rng: random.Random,
) -> list[Candidate]:
    """Older choices to train on again, so that nobody is forgotten.

    One choice per user in turn, users trained longest ago first, until `limit`; within a user at
    random. `user_cap` counts the user's new pairs too.
    """
    per_user = Counter(candidate.user_id for candidate in picked if candidate.use == "new")
    pools: defaultdict[int, list[Candidate]] = defaultdict(list)
    for candidate in used:
        pools[candidate.user_id].append(candidate)
    for pool in pools.values():
        rng.shuffle(pool)
    oldest_first = sorted(pools, key=lambda user: (last_trained.get(user, _NEVER), user))
    replay: list[Candidate] = []
    while len(replay) < limit:
        before = len(replay)
        for user in oldest_first:
            if len(replay) < limit and pools[user] and per_user[user] < user_cap:
                replay.append(pools[user].pop())
                per_user[user] += 1
        if len(replay) == before:
            break
    return replay
