"""Who is asking, and what an expected error looks like: the one place for both.

`gr.Request.username` is what the mounted app's auth dependency returned for this very request: the
only identity to trust. The browser's session hash and everything in a handler's inputs are not.

Messages are returned as text for the page's own notice line. `gr.Warning` is no use here: it says
nothing to handlers outside the queue, and it renders its text as HTML.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gradio as gr

from backend.auth import Accounts, CurrentUser
from backend.errors import AttuneError, NotSignedIn

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What became of an attempt: `message` is None when nothing went wrong."""

    message: str | None = None

    @property
    def failed(self) -> bool:
        return self.message is not None


@contextmanager
def expected_errors() -> Iterator[Outcome]:
    """Turns an expected error inside the block into the outcome's message.

    Anything unexpected passes through: Gradio logs it and the page says only that it happened.
    """
    outcome = Outcome()
    try:
        yield outcome
    except AttuneError as error:
        _log.info("%s: %s", type(error).__name__, error)
        outcome.message = str(error)


def signed_in(request: gr.Request, accounts: Accounts) -> CurrentUser:
    """The user this request belongs to.

    Raises:
        NotSignedIn: the request carries no identity.
    """
    if not request.username:
        raise NotSignedIn("Please sign in again: reload the page.")
    return accounts.user(int(request.username))
