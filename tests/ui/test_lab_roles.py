"""Every handler of the lab asks for the role itself; the mount before it asks only once more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from backend.auth import CurrentUser
from ui.lab import build_lab


class _Annotators:
    def user(self, user_id: int) -> CurrentUser:
        return CurrentUser(user_id, "mia", "annotator", is_guest=False, has_password=True)


class _Closed:
    """A use case nobody may get to."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was reached by an annotator")


# Gradio makes an event loop for each page, which only a server would close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_an_annotator_sends_reaches_no_use_case() -> None:
    closed: Any = _Closed()
    accounts: Any = _Annotators()
    page = build_lab(closed, closed, closed, accounts, closed, evidence=closed)
    request = SimpleNamespace(username="3")
    answers = {}
    for event in page.fns.values():
        if (
            event.fn is not None and event.fn.__name__ != "<lambda>"
        ):  # a lambda only hides the question
            told = event.fn(*[2 for _ in event.inputs], request)
            answers[event.fn.__qualname__] = [v for v in told.values() if isinstance(v, str)]
    names = {name.rsplit(".", 1)[-1] for name in answers}
    assert names == {"refresh", "look", "train_now", "ask", "roll_back", "run", "stop"}
    assert all(any("researchers" in line for line in lines) for lines in answers.values()), answers
