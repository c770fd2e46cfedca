"""Wrong passwords are slowed down, and nobody is locked out by a stranger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import throttle
from backend.auth import Accounts
from backend.errors import (
    AttuneError,
    InvalidInput,
    TooManyRequests,
)
from backend.throttle import Limit, network_of
from tests.backend.people import ELSEWHERE, GOOD, HOME, side_by_side
from tests.conftest import Clock


def wrong_passwords(accounts: Accounts, times: int, name: str, **where: str) -> list[AttuneError]:
    errors: list[AttuneError] = []
    for _ in range(times):
        with pytest.raises((InvalidInput, TooManyRequests)) as caught:
            accounts.sign_in(name, "not the password", **where)
        errors.append(caught.value)
    return errors


def test_wrong_passwords_are_slowed_down_and_the_wait_grows(
    accounts: Accounts, clock: Clock
) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    free = throttle.ACCOUNT_FROM_ADDRESS.free
    errors = wrong_passwords(accounts, free + 1, "mara", address=HOME)
    assert [type(error) for error in errors] == [InvalidInput] * free + [TooManyRequests]
    waits = []
    for _ in range(4):
        [error] = wrong_passwords(accounts, 1, "mara", address=HOME)
        assert isinstance(error, TooManyRequests)
        waits.append(error.retry_after_s)
        clock.forward(seconds=error.retry_after_s)
        [error] = wrong_passwords(accounts, 1, "mara", address=HOME)
        assert isinstance(error, InvalidInput)
    assert waits == sorted(set(waits))


def test_even_the_right_password_waits(accounts: Accounts, clock: Clock) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    wrong_passwords(accounts, throttle.ACCOUNT_FROM_ADDRESS.free, "mara", address=HOME)
    with pytest.raises(TooManyRequests, match="wait") as caught:
        accounts.sign_in("mara", GOOD, address=HOME)
    clock.forward(seconds=caught.value.retry_after_s)
    accounts.sign_in("mara", GOOD, address=HOME)


def test_signing_in_sets_the_count_back(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    for _ in range(3):
        wrong_passwords(accounts, throttle.ACCOUNT_FROM_ADDRESS.free - 1, "mara", address=HOME)
        accounts.sign_in("mara", GOOD, address=HOME)


def test_unknown_names_are_counted_like_known_ones(accounts: Accounts) -> None:
    errors = wrong_passwords(
        accounts, throttle.ACCOUNT_FROM_ADDRESS.free + 1, "nobody", address=HOME
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_an_attacker_elsewhere_does_not_lock_the_owner_out(
    accounts: Accounts, clock: Clock
) -> None:
    known = accounts.sign_up("mara", GOOD, address=HOME)
    for host in range(1, 60):  # a botnet, one try each, hour after hour
        with pytest.raises((InvalidInput, TooManyRequests)):
            accounts.sign_in("mara", "not the password", address=f"203.0.113.{host}")
    with pytest.raises(TooManyRequests) as caught:
        accounts.sign_in("mara", GOOD, address=HOME)  # a browser never seen waits a little
    assert caught.value.retry_after_s <= throttle.ACCOUNT.longest_wait_s + 1
    accounts.sign_in("mara", GOOD, address=HOME, browser=known.browser)  # her own does not
    clock.forward(seconds=caught.value.retry_after_s)
    accounts.sign_in("mara", GOOD, address=HOME)


def test_a_known_browser_is_counted_too(accounts: Accounts) -> None:
    browser = accounts.sign_up("mara", GOOD, address=HOME).browser
    errors = wrong_passwords(
        accounts, throttle.KNOWN_BROWSER.free + 1, "mara", address=HOME, browser=browser
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_a_browser_known_to_another_account_counts_as_unknown(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    own = accounts.sign_up("eve", GOOD, address=HOME).browser
    errors = wrong_passwords(
        accounts,
        throttle.ACCOUNT_FROM_ADDRESS.free + 1,
        "mara",
        address=HOME,
        browser=own,
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_one_password_tried_on_many_accounts_is_slowed_down(accounts: Accounts) -> None:
    outcomes = [
        wrong_passwords(accounts, 1, f"user{n}", address=HOME)[0]
        for n in range(throttle.ADDRESS.free + 1)
    ]
    assert isinstance(outcomes[-2], InvalidInput)
    assert isinstance(outcomes[-1], TooManyRequests)
    accounts.sign_up("mara", GOOD, address=HOME)
    accounts.sign_in("mara", GOOD, address=ELSEWHERE)


def test_guesses_side_by_side_are_counted(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    outcomes = side_by_side(
        *[lambda: accounts.sign_in("mara", "not the password", address=HOME)] * 12
    )
    checked = sum(isinstance(outcome, InvalidInput) for outcome in outcomes)
    assert checked == throttle.ACCOUNT_FROM_ADDRESS.free


def test_accounts_made_from_one_address_are_limited(accounts: Accounts, clock: Clock) -> None:
    for _ in range(throttle.NEW_ACCOUNTS.free):
        accounts.guest(address=HOME)
    for one_more in (
        lambda: accounts.guest(address=HOME),
        lambda: accounts.sign_up("mara", GOOD, address=HOME),
        lambda: accounts.sign_in_hugging_face("sub", "mara", address=HOME),
    ):
        with pytest.raises(TooManyRequests):
            one_more()
    accounts.guest(address=ELSEWHERE)
    clock.forward(hours=1)
    accounts.guest(address=HOME)


@given(failures=st.integers(0, 10_000), since=st.floats(-1e6, 1e6))
def test_waits_are_bounded_and_run_out(failures: int, since: float) -> None:
    """Also where the clock was set back, and the last try lies ahead."""
    limit = Limit(free=5, window_s=900, first_wait_s=4, longest_wait_s=300)
    wait = limit.wait_s(failures, since)
    assert 0 <= wait <= 300
    assert limit.wait_s(failures, max(0.0, since) + wait) == pytest.approx(0, abs=1e-6)
    assert (wait == 0) or failures >= 5


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_counts_by_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
