"""What the tests of accounts share: a good password, two addresses, calls made at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from backend.errors import AttuneError
from backend.passwords import Passwords

GOOD = "a quiet sentence"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def cheap() -> Passwords:
    """Real argon2id at its smallest."""
    return Passwords(memory_kib=8, passes=1)


class Meeting(Passwords):
    """Nobody's hash is done before two have begun: both are past every early check then."""

    def __init__(self) -> None:
        super().__init__(memory_kib=8, passes=1)
        self._both = threading.Barrier(2, timeout=20)

    def hash(self, password: str) -> str:
        self._both.wait()
        return super().hash(password)


def side_by_side(*calls: Callable[[], object]) -> list[object]:
    """What each call returned or raised, all of them begun at once."""

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except AttuneError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))
