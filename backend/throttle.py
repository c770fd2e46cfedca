"""How often a password may be tried, counted in the database so that all processes share it.

An attempt is counted *before* the password is checked and taken back when it was right, so
guesses sent side by side count too. Three counters guard a sign-in: the account as tried from one
address, the account from anywhere, the address whatever the account. Waits grow, are bounded, and
run out. A browser that has been signed in to the account before has a counter of its own instead:
whoever fires wrong passwords at an account from elsewhere never locks its owner out.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend.errors import TooManyRequests
from backend.wording import Counted
from db.queries import users as queries

_SECONDS = Counted(
    "Too many tries. Please wait a second and try again.",
    "Too many tries. Please wait {count} seconds and try again.",
)
_MINUTES = Counted(
    "Too many tries. Please wait a minute and try again.",
    "Too many tries. Please wait {count} minutes and try again.",
)


@dataclass(frozen=True, slots=True)
class Limit:
    """`free` tries within `window_s`; then a wait that doubles up to `longest_wait_s`."""

    free: int
    window_s: int
    first_wait_s: int
    longest_wait_s: int

    def wait_s(self, failures: int, since_last_s: float) -> float:
        """Seconds until the next try is let through, after so many failures in the window."""
        if failures < self.free:
            return 0.0
        doublings = min(failures - self.free, 30)
        wait = min(self.first_wait_s << doublings, self.longest_wait_s)
        # A clock that was set back makes nobody wait longer.
        return max(0.0, wait - max(0.0, since_last_s))


ACCOUNT_FROM_ADDRESS = Limit(free=5, window_s=900, first_wait_s=4, longest_wait_s=300)
ACCOUNT = Limit(free=30, window_s=900, first_wait_s=2, longest_wait_s=60)
ADDRESS = Limit(free=60, window_s=900, first_wait_s=2, longest_wait_s=60)
KNOWN_BROWSER = Limit(free=10, window_s=900, first_wait_s=4, longest_wait_s=300)
PASSWORD_CHANGE = Limit(free=5, window_s=900, first_wait_s=4, longest_wait_s=300)
NEW_ACCOUNTS = Limit(free=100, window_s=3600, first_wait_s=60, longest_wait_s=600)
LONGEST_WINDOW_S = 3600


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that was let through and counted.

    Attributes:
        own_keys: counters that a success sets back to nothing.
        row_ids: the rows this try added; a success takes them back.
    """

    own_keys: tuple[str, ...]
    row_ids: tuple[int, ...]


def sign_in_limits(
    account: str, address: str, known_browser: str | None
) -> tuple[dict[str, Limit], dict[str, Limit]]:
    """The counters of a sign-in: those that belong to the account, and the shared ones."""
    if known_browser is not None:
        return {_key("browser", known_browser, account): KNOWN_BROWSER}, {}
    network = network_of(address)
    own = {
        _key("account", account): ACCOUNT,
        _key("account", account, network): ACCOUNT_FROM_ADDRESS,
    }
    return own, {_key("address", network): ADDRESS}


def password_change_limits(user_id: int) -> dict[str, Limit]:
    """The counter of tries to name the present password."""
    return {_key("change", str(user_id)): PASSWORD_CHANGE}


def new_account_limits(address: str) -> dict[str, Limit]:
    """The counter of accounts made from one address."""
    return {_key("made", network_of(address)): NEW_ACCOUNTS}


def network_of(address: str) -> str:
    """The address that counts: all of IPv4, the /64 of IPv6 (one household has that many)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
    return str(parsed)


def begin(
    session: Session,
    own: Mapping[str, Limit],
    shared: Mapping[str, Limit],
    now: datetime,
) -> Attempt:
    """Let one try through and count it.

    Raises:
        TooManyRequests: some counter says wait; nothing is counted then.
    """
    limits = {**own, **shared}
    since = now - timedelta(seconds=max(limit.window_s for limit in limits.values()))
    counts = queries.failures(session, limits.keys(), since)
    wait_s = max(
        (
            limits[key].wait_s(found.count, (now - found.last_at).total_seconds())
            for key, found in counts.items()
        ),
        default=0.0,
    )
    if wait_s > 0:
        retry_after_s = int(wait_s) + 1
        text, count = _wait(retry_after_s)
        raise TooManyRequests(text, count=count, retry_after_s=retry_after_s)
    row_ids = queries.add_failures(session, limits.keys(), now)
    return Attempt(tuple(own), row_ids)


def forgive(session: Session, attempt: Attempt) -> None:
    """The try was a success: it does not count, and the account's counters start anew."""
    queries.forget_failures(session, attempt.own_keys, attempt.row_ids)


def _key(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()


def _wait(seconds: int) -> tuple[Counted, int]:
    """The sentence about a wait, and the number in it."""
    return (_SECONDS, seconds) if seconds < 90 else (_MINUTES, round(seconds / 60))
