"""A person's own account, and for admins below it the invites and the users.

Server-drawn like `accounts.py`: a form that worked redirects back here with a short word in
`done`, one that did not draws the page again with the error beside that form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backend.administration import INVITE_DAYS, MOST_USERS_SHOWN, Administration
from backend.auth import Accounts, CurrentUser
from backend.errors import AttuneError, NotFound
from backend.identity import ROLES, includes
from backend.web import SESSION_COOKIE, SessionCookie, Visitors
from backend.wording import msg
from ui.forms import fields, show_form
from ui.server_pages import ServerPages

_FRESH_INVITE_COOKIE = "attune_invite"
_FRESH_INVITE_S = 120
_DONE = {
    "claimed": msg("Your account has a name now. All your choices came along."),
    "password": msg("The password is changed. Every other browser was signed out."),
    "role": msg("Your account can do more now."),
    "users": msg("Saved."),
    "withdrawn": msg("The invite does not work any more."),
}

Step = Callable[[CurrentUser, dict[str, str]], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class AccountPage:
    """`/account` and the forms on it."""

    accounts: Accounts
    administration: Administration
    visitors: Visitors
    cookie: SessionCookie
    shown: ServerPages
    public_url: str

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        app.add_route("/account", self.show, methods=["GET"])
        app.add_route("/logout", self.to_account, methods=["GET"])
        app.add_route("/logout", self.logout, methods=["POST"])
        for name, step in (
            ("claim", self._claim),
            ("password", self._password),
            ("invites", self._invite),
            ("withdraw", self._withdraw),
            ("users", self._user),
        ):
            app.add_route(f"/account/{name}", self._form(name, step), methods=["POST"])
            app.add_route(f"/account/{name}", self.to_account, methods=["GET"])

    async def to_account(self, _request: Request) -> Response:
        return RedirectResponse("/account", 303)

    async def show(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        if user is None:
            return _to_login()
        return await self._page(request, user)

    async def logout(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        form = await fields(request)
        if user is not None and user.is_guest and form.get("sure") != "yes":
            return RedirectResponse("/account?leaving=1", 303)
        if token := request.cookies.get(SESSION_COOKIE):
            await run_in_threadpool(self.accounts.sign_out, token)
        response = RedirectResponse("/login", 303)
        self.cookie.forget(response)
        return response

    def _form(self, name: str, step: Step) -> Callable[[Request], Awaitable[Response]]:
        """A posted form: done and back to the page, or the page with the error beside it."""

        async def posted(request: Request) -> Response:
            user = await self.visitors.current_user(request)
            if user is None:
                return _to_login()
            form = await fields(request)
            try:
                return await step(user, form)
            except AttuneError as error:
                return await self._page(request, user, name, error, form)

        return posted

    async def _claim(self, user: CurrentUser, form: dict[str, str]) -> Response:
        signed_in = await run_in_threadpool(
            self.accounts.claim, user.id, form.get("username", ""), form.get("password", "")
        )
        response = RedirectResponse("/account?done=claimed", 303)
        self.cookie.remember(response, signed_in)
        return response

    async def _password(self, user: CurrentUser, form: dict[str, str]) -> Response:
        signed_in = await run_in_threadpool(
            self.accounts.change_password, user.id, form.get("current", ""), form.get("new", "")
        )
        response = RedirectResponse("/account?done=password", 303)
        self.cookie.remember(response, signed_in)
        return response

    async def _invite(self, user: CurrentUser, form: dict[str, str]) -> Response:
        token = await run_in_threadpool(self.administration.invite, user.id, form.get("role", ""))
        response = RedirectResponse("/account#invites", 303)
        self.cookie.set(response, _FRESH_INVITE_COOKIE, token, _FRESH_INVITE_S)
        return response

    async def _withdraw(self, user: CurrentUser, form: dict[str, str]) -> Response:
        await run_in_threadpool(
            self.administration.withdraw_invite, user.id, _number(form.get("id", ""))
        )
        return RedirectResponse("/account?done=withdrawn#invites", 303)

    async def _user(self, user: CurrentUser, form: dict[str, str]) -> Response:
        user_id, act = _number(form.get("id", "")), form.get("act", "role")
        if act == "disable":
            await run_in_threadpool(self.administration.disable, user.id, user_id)
        elif act == "enable":
            await run_in_threadpool(self.administration.enable, user.id, user_id)
        else:
            await run_in_threadpool(
                self.administration.set_role, user.id, user_id, form.get("role", "")
            )
        return RedirectResponse("/account?done=users#users", 303)

    async def _page(
        self,
        request: Request,
        user: CurrentUser,
        wrong: str = "",
        error: AttuneError | None = None,
        form: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        query = request.query_params
        response = show_form(
            self.shown,
            request,
            "account.html",
            error,
            user=user,
            is_researcher=includes(user.role, "researcher"),
            wrong=wrong,
            username=form.get("username", ""),
            done=_DONE.get(query.get("done", "")),
            leaving="leaving" in query,
            **(await self._admins_part(request, user)),
        )
        if _FRESH_INVITE_COOKIE in request.cookies:
            self.cookie.set(response, _FRESH_INVITE_COOKIE, "", 0)
        return response

    async def _admins_part(self, request: Request, user: CurrentUser) -> dict[str, Any]:
        if user.role != "admin":
            return {"is_admin": False}
        search = request.query_params.get("q", "")
        return {
            "is_admin": True,
            "roles": ROLES,
            "days": INVITE_DAYS,
            "most": MOST_USERS_SHOWN,
            "search": search,
            "fresh_invite": await self._fresh_invite(request),
            "invites": await run_in_threadpool(self.administration.open_invites, user.id),
            "people": await run_in_threadpool(self.administration.users, user.id, search),
        }

    async def _fresh_invite(self, request: Request) -> str | None:
        """The link just made: shown once, and only if it is indeed one of ours."""
        token = request.cookies.get(_FRESH_INVITE_COOKIE, "")
        try:
            await run_in_threadpool(self.administration.invited_role, token)
        except NotFound:
            return None
        here = (self.public_url or str(request.base_url)).rstrip("/")
        return f"{here}/invite/{token}"


def _to_login() -> Response:
    return RedirectResponse("/login?next=/account", 303)


def _number(text: str) -> int:
    """A row's id from a form; anything else belongs to no row."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0
