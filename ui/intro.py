"""The introduction: consent where the study asks for it, what one does, an example pair, the keys.

Server-drawn, one step after the other; a link leads here again from the guide. The example pair
is made of fixed texts and the answer to it travels in the address: nothing of it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backend.auth import CurrentUser
from backend.errors import AttuneError, InvalidInput
from backend.introductions import Introductions
from backend.web import WELCOME_PATH, Visitors
from backend.wording import msg
from ui.forms import fields, show_form
from ui.server_pages import ServerPages, local_path

AGREE_PATH = f"{WELCOME_PATH}/consent"
EXAMPLE_PROMPT = msg("How do I start running?")
EXAMPLE_A = msg(
    "Run one minute, walk two, ten times over. Three days a week. Shoes that fit are all you need."
)
EXAMPLE_B = msg(
    "Starting to run can be rewarding. First set a clear goal, then choose proper footwear, and "
    "speak to a physician if you are in doubt. Consistency is the key to success."
)
ANSWERS = {
    "a": msg("A is better"),
    "tie": msg("Tie"),
    "both_bad": msg("Both bad"),
    "b": msg("B is better"),
}
TAKEN = {
    "a": msg("You prefer A. After a few such choices, responses for you would become shorter."),
    "tie": msg("You would take either. That counts as well: a tie is a choice too."),
    "both_bad": msg("You would take neither. Say so whenever it is so; nobody has to pick."),
    "b": msg(
        "You prefer B. After a few such choices, responses for you would become more careful."
    ),
}
MUST_AGREE = msg("Please tick the box if you agree. Without it you cannot take part.")

_FIRST, _LAST = 1, 3


@dataclass(frozen=True, kw_only=True)
class IntroPages:
    """`/welcome` and its forms."""

    introductions: Introductions
    visitors: Visitors
    shown: ServerPages

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        app.add_route(WELCOME_PATH, self.show, methods=["GET"])
        app.add_route(WELCOME_PATH, self.finish, methods=["POST"])
        app.add_route(AGREE_PATH, self.agree, methods=["POST"])
        app.add_route(AGREE_PATH, self.back, methods=["GET"])

    async def show(self, request: Request) -> Response:
        """The consent first, then the step that the address names."""
        user = await self.visitors.current_user(request)
        if user is None:
            return RedirectResponse(f"/login?next={WELCOME_PATH}", 303)
        query = request.query_params
        target = local_path(query.get("next", "/"))
        if self.introductions.lacks_consent(user):
            return self._consent(request, user, target)
        return self.shown.show(
            request,
            "intro.html",
            step=_step(query.get("step", "")),
            steps=_LAST,
            next=target,
            here=WELCOME_PATH,
            prompt=EXAMPLE_PROMPT,
            texts={"A": EXAMPLE_A, "B": EXAMPLE_B},
            answers=ANSWERS,
            taken=TAKEN.get(query.get("answer", "")),
            again=user.introduced,
        )

    async def back(self, _request: Request) -> Response:
        return RedirectResponse(WELCOME_PATH, 303)

    async def agree(self, request: Request) -> Response:
        """The box was ticked; guests go straight on, others to the introduction."""
        user = await self.visitors.current_user(request)
        if user is None:
            return RedirectResponse(f"/login?next={WELCOME_PATH}", 303)
        form = await fields(request)
        target = local_path(form.get("next", "/"))
        try:
            if form.get("agree") != "yes":
                raise InvalidInput(MUST_AGREE)
            await run_in_threadpool(self.introductions.agree, user.id, form.get("text", ""))
        except AttuneError as error:
            return self._consent(request, user, target, error)
        due = self.introductions.is_due(user)
        return RedirectResponse(welcome_before(target) if due else target, 303)

    async def finish(self, request: Request) -> Response:
        """Off to work, now and without the introduction from now on."""
        user = await self.visitors.current_user(request)
        target = local_path((await fields(request)).get("next", "/"))
        if user is not None:
            await run_in_threadpool(self.introductions.finish, user.id)
        return RedirectResponse(target, 303)

    def _consent(
        self, request: Request, user: CurrentUser, target: str, error: AttuneError | None = None
    ) -> Response:
        text = self.introductions.consent_text
        return show_form(
            self.shown,
            request,
            "consent.html",
            error,
            user=user,
            paragraphs=text.replace("\r\n", "\n").split("\n\n"),
            text_hash=self.introductions.text_hash,
            next=target,
            action=AGREE_PATH,
            changed=self.introductions.agreed_to_another(user),
        )


def welcome_before(target: str) -> str:
    """The introduction's address, from which one goes on to `target`."""
    return WELCOME_PATH if target == "/" else f"{WELCOME_PATH}?{urlencode({'next': target})}"


def _step(text: str) -> int:
    return int(text) if text in {str(n) for n in range(_FIRST, _LAST + 1)} else _FIRST
