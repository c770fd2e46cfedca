"""Who is asking, and what an expected error looks like: the one place for both.

`gr.Request.username` is what the mounted app's auth dependency returned for this very request: the
only identity to trust. The browser's session hash and everything in a handler's inputs are not.

Messages are returned as text for the page's own notice line. `gr.Warning` is no use here: it says
nothing to handlers outside the queue, and it renders its text as HTML.
"""

from __future__ import annotations

import logging
from types import TracebackType

import gradio as gr

from backend.auth import Accounts, CurrentUser, require_role
from backend.errors import NotSignedIn, friendly
from backend.wording import msg
from ui.language import Language

_RELOAD = msg("Please sign in again: reload the page.")

_log = logging.getLogger(__name__)


class Attempt:
    """`with Attempt(language) as attempt:` stops at an expected error and keeps its sentence.

    Anything unexpected passes through: Gradio logs it and the page says only that it happened.

    Args:
        language: the user's; none: English.

    Attributes:
        message: what to tell the user; None when nothing went wrong.
    """

    def __init__(self, language: Language | None = None) -> None:
        self._language = language
        self.message: str | None = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or (message := friendly(error)) is None:
            return False
        _log.info("%s: %s", type(error).__name__, error)
        language = self._language
        self.message = str(message) if language is None else language.sentence(message)
        return True


def signed_in(request: gr.Request, accounts: Accounts) -> CurrentUser:
    """The user this request belongs to.

    Raises:
        NotSignedIn: the request carries no identity.
    """
    if not request.username:
        raise NotSignedIn(_RELOAD)
    return accounts.user(int(request.username))


def researcher(request: gr.Request, accounts: Accounts) -> CurrentUser:
    """The same, where this is a researcher.

    Raises:
        NotSignedIn: the request carries no identity. NotAllowed: it is an annotator's.
    """
    user = signed_in(request, accounts)
    require_role(user, "researcher")
    return user
