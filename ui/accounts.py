"""The way in and out: sign in, sign up, guests, invites, Hugging Face.

Server-drawn forms without scripts. A form that worked answers with a redirect; one that did not
is drawn again with the error's sentence in place. The account page is in `account_page.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from backend.administration import Administration
from backend.auth import Accounts, CurrentUser, SignedIn
from backend.errors import AttuneError, NotFound
from backend.introductions import Introductions
from backend.oauth import CALLBACK_PATH, LOGIN_PATH, HuggingFaceLogin
from backend.web import (
    BROWSER_COOKIE,
    SESSION_COOKIE,
    SessionCookie,
    Visitors,
    client_address,
)
from ui.forms import fields, show_form
from ui.intro import welcome_before
from ui.language_choice import keep_language
from ui.server_pages import ServerPages, local_path


@dataclass(frozen=True, kw_only=True)
class Door:
    """The pages a visitor passes on the way in."""

    accounts: Accounts
    administration: Administration
    visitors: Visitors
    cookie: SessionCookie
    shown: ServerPages
    introductions: Introductions
    hugging_face: HuggingFaceLogin | None
    public_url: str
    embed: bool

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        for path, get, post in (
            ("/login", self.show_login, self.login),
            ("/signup", self.show_signup, self.signup),
            ("/invite/{token}", self.show_invite, self.invite),
            ("/guest", self.to_login, self.guest),
        ):
            app.add_route(path, get, methods=["GET"])
            app.add_route(path, post, methods=["POST"])
        if self.hugging_face is not None:
            guard = [self.hugging_face.middleware]
            for path, step in ((LOGIN_PATH, self.leave), (CALLBACK_PATH, self.come_back)):
                app.router.routes.append(Route(path, step, methods=["GET"], middleware=guard))

    async def show_login(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        target = local_path(request.query_params.get("next", "/"))
        if user is not None and not user.is_guest:
            return RedirectResponse(target, 303)
        return self._form(request, "login.html", user, target)

    async def login(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        form = await fields(request)
        target = local_path(form.get("next", "/"))
        name = form.get("username", "")
        if user is not None and user.is_guest and form.get("leaving") != "yes":
            # The page is from before this guest came: it did not say what would be left behind.
            return self._form(request, "login.html", user, target, username=name)
        try:
            signed_in = await run_in_threadpool(
                self.accounts.sign_in,
                name,
                form.get("password", ""),
                address=client_address(request),
                browser=request.cookies.get(BROWSER_COOKIE, ""),
            )
        except AttuneError as error:
            return self._form(request, "login.html", user, target, error=error, username=name)
        return await self._enter(request, signed_in, target)

    async def show_signup(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        target = local_path(request.query_params.get("next", "/"))
        if user is not None:
            return RedirectResponse("/account" if user.is_guest else target, 303)
        return self._form(request, "signup.html", None, target)

    async def signup(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        form = await fields(request)
        target = local_path(form.get("next", "/"))
        name = form.get("username", "")
        try:
            signed_in = await self._new_account(request, user, form, None)
        except AttuneError as error:
            return self._form(request, "signup.html", user, target, error=error, username=name)
        return await self._enter(request, signed_in, target)

    async def to_login(self, _request: Request) -> Response:
        return RedirectResponse("/login", 303)

    async def guest(self, request: Request) -> Response:
        target = local_path((await fields(request)).get("next", "/"))
        if await self.visitors.current_user(request) is not None:
            return RedirectResponse(target, 303)
        try:
            signed_in = await run_in_threadpool(
                self.accounts.guest, address=client_address(request)
            )
        except AttuneError as error:
            return self._form(request, "login.html", None, target, error=error)
        return await self._enter(request, signed_in, target)

    async def show_invite(self, request: Request) -> Response:
        user = await self.visitors.current_user(request)
        return await self._invite_form(request, user, request.path_params["token"])

    async def invite(self, request: Request) -> Response:
        token = request.path_params["token"]
        user = await self.visitors.current_user(request)
        form = await fields(request)
        try:
            if user is not None and not user.is_guest:
                await run_in_threadpool(self.accounts.accept_invite, user.id, token)
                return RedirectResponse("/account?done=role", 303)
            signed_in = await self._new_account(request, user, form, token)
        except AttuneError as error:
            return await self._invite_form(request, user, token, error, form.get("username", ""))
        return await self._enter(request, signed_in, "/")

    async def leave(self, request: Request) -> Response:
        assert self.hugging_face is not None
        here = self.public_url or str(request.base_url)
        invite = request.query_params.get("invite", "")
        # An account that turns out to exist already is asked there whether it takes the invite.
        target = (
            f"/invite/{quote(invite, safe='')}" if invite else request.query_params.get("next", "/")
        )
        errand = {"next": local_path(target), "invite": invite}
        try:
            return await self.hugging_face.begin(request, here, errand)
        except AttuneError as error:
            return self._form(request, "login.html", None, errand["next"], error=error)

    async def come_back(self, request: Request) -> Response:
        assert self.hugging_face is not None
        user = await self.visitors.current_user(request)
        guest_id = user.id if user is not None and user.is_guest else None
        try:
            arrival = await self.hugging_face.finish(request)
            invite = arrival.errand.get("invite") or None
            signed_in = await run_in_threadpool(
                self.accounts.sign_in_hugging_face,
                arrival.subject,
                arrival.name,
                address=client_address(request),
                guest_id=guest_id,
                invite=invite,
            )
        except AttuneError as error:
            return self._form(request, "login.html", user, "/", error=error)
        target = local_path(arrival.errand.get("next", "/"))
        if invite and not await self._is_open(invite):
            target = "/"
        return await self._enter(request, signed_in, target)

    async def _new_account(
        self, request: Request, user: CurrentUser | None, form: dict[str, str], invite: str | None
    ) -> SignedIn:
        """A guest's account gets the name and the password; anybody else gets a new account."""
        name, password = form.get("username", ""), form.get("password", "")
        if user is not None and user.is_guest:
            return await run_in_threadpool(
                self.accounts.claim, user.id, name, password, invite=invite
            )
        return await run_in_threadpool(
            self.accounts.sign_up,
            name,
            password,
            address=client_address(request),
            invite=invite,
        )

    async def _enter(self, request: Request, signed_in: SignedIn, target: str) -> Response:
        """Into the app; the session that this browser had before ends."""
        if earlier := request.cookies.get(SESSION_COOKIE):
            await run_in_threadpool(self.accounts.sign_out, earlier)
        if self.introductions.is_due(signed_in.user):
            target = welcome_before(target)
        response = RedirectResponse(target, 303)
        self.cookie.remember(response, signed_in)
        if signed_in.user.language:
            keep_language(self.cookie, response, signed_in.user.language)
        return response

    async def _is_open(self, invite: str) -> bool:
        try:
            await run_in_threadpool(self.administration.invited_role, invite)
        except NotFound:
            return False
        return True

    async def _invite_form(
        self,
        request: Request,
        user: CurrentUser | None,
        token: str,
        error: AttuneError | None = None,
        username: str = "",
    ) -> Response:
        try:
            role = await run_in_threadpool(self.administration.invited_role, token)
        except NotFound as gone:
            return self._form(request, "invite.html", user, "/", error=gone, role=None, token=token)
        return self._form(
            request,
            "invite.html",
            user,
            "/",
            error=error,
            username=username,
            role=role,
            token=token,
        )

    def _form(
        self,
        request: Request,
        template: str,
        user: CurrentUser | None,
        target: str,
        *,
        error: AttuneError | None = None,
        username: str = "",
        **values: Any,
    ) -> Response:
        return show_form(
            self.shown,
            request,
            template,
            error,
            user=user,
            next=target,
            username=username,
            signup=self.accounts.signup,
            guests=self.accounts.guests_welcome,
            hugging_face=self.hugging_face is not None,
            new_tab=self.embed,
            **values,
        )
