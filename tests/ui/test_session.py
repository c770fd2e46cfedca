"""Who is asking, and what becomes of an expected error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from backend.auth import CurrentUser
from backend.errors import Conflict, NotAllowed, NotSignedIn
from ui.session import Attempt, researcher, signed_in


def test_an_expected_error_becomes_its_sentence() -> None:
    with Attempt() as attempt:
        raise Conflict("Too late.")
    assert attempt.message == "Too late."


def test_nothing_to_say_when_all_is_well() -> None:
    with Attempt() as attempt:
        pass
    assert attempt.message is None


def test_a_fault_of_ours_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), Attempt():
        _ = 1 / 0


def _request(username: str | None) -> Any:
    # A client may put what it likes into everything but `username`.
    return SimpleNamespace(username=username, session_hash="7", query_params={"username": "7"})


class _Accounts:
    def user(self, user_id: int) -> int:
        return user_id


def test_only_the_vouched_for_name_counts() -> None:
    assert cast(int, signed_in(_request("3"), cast(Any, _Accounts()))) == 3


def test_a_request_without_a_name_is_nobodys() -> None:
    with pytest.raises(NotSignedIn):
        signed_in(_request(None), cast(Any, _Accounts()))


class _AllOf:
    def __init__(self, role: str) -> None:
        self._role = role

    def user(self, user_id: int) -> CurrentUser:
        return CurrentUser(user_id, "mia", self._role, is_guest=False, has_password=True)


@pytest.mark.parametrize("role", ["researcher", "admin"])
def test_researchers_and_admins_are_let_in(role: str) -> None:
    assert researcher(_request("3"), cast(Any, _AllOf(role))).id == 3


def test_an_annotator_is_no_researcher() -> None:
    with pytest.raises(NotAllowed):
        researcher(_request("3"), cast(Any, _AllOf("annotator")))
