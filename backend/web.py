"""The FastAPI app that carries every page: middleware, style sheets, request → user.

`FrontDoor` (front_door.py) stands before it. Knows no page: routers and Gradio pages are added by
the composition root, `/` last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, HTTPException
from sqlalchemy import exc
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from backend.auth import Accounts, CurrentUser, SignedIn, require_role
from backend.errors import (
    AttuneError,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooManyRequests,
    Unavailable,
)
from backend.front_door import FrontDoor
from backend.guards import (
    ErrorPages,
    HttpsBehindProxy,
    SameOrigin,
    SecurityHeaders,
    content_security_policy,
    is_page_load,
)
from backend.wording import msg

__all__ = ["FrontDoor", "SessionCookie", "Visitors", "create_web", "status_of"]

SESSION_COOKIE = "attune_session"
BROWSER_COOKIE = "attune_browser"
WELCOME_PATH = "/welcome"
_BROWSER_LASTS_S = 400 * 24 * 3600  # the longest that browsers keep a cookie
_STATUS: dict[type[AttuneError], int] = {
    NotSignedIn: 401,
    NotAllowed: 403,
    NotFound: 404,
    InvalidInput: 400,
    Conflict: 409,
    TooManyRequests: 429,
    Unavailable: 503,
}
_NO_CONSENT = msg("Please agree to the study’s text first: reload the page.")
_AWAY = msg("The database does not answer. Please try again in a moment.")
# A server that went away, a connection that broke, and none that came free in time.
_DATABASE_AWAY = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def create_web(
    *,
    assets: Path,
    error_page: Callable[[int, str, Request], str],
    public_url: str = "",
    embed: bool = False,
    form_targets: tuple[str, ...] = (),
    max_body_bytes: int = 4 * 1024 * 1024,
) -> FastAPI:
    """The app with its middleware and nothing on it but the files of `assets` at `/assets/…`.

    Args:
        error_page: status, message and request → the HTML a person sees.
        public_url: the address people use where a proxy stands in front, else empty.
        embed: the pages are shown in a frame on huggingface.co.
        form_targets: origins besides ours that a form may lead to (an OAuth provider).
        max_body_bytes: longer requests are refused (413).
    """
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        max_body_size=max_body_bytes,
        exception_handlers={
            AttuneError: _expected,
            **dict.fromkeys(_DATABASE_AWAY, _database_away),
        },
    )
    # The last one added is the first one met. CORSMiddleware without origins allows no other site
    # and turns off Gradio's own, which would mirror any origin.
    app.add_middleware(CORSMiddleware)
    app.add_middleware(SameOrigin, public_url=public_url)
    app.add_middleware(ErrorPages, render=error_page)
    if public_url.startswith("https://"):
        app.add_middleware(HttpsBehindProxy)
    policy = content_security_policy(embed=embed, form_targets=form_targets)
    app.add_middleware(SecurityHeaders, policy=policy, embed=embed)
    _serve_assets(app, assets)
    return app


class SessionCookie:
    """The session's cookie, and the one by which a browser is known again.

    Args:
        secure: the pages are reached by https.
        embed: they are shown in a cross-site frame, where only `SameSite=None` cookies arrive.
    """

    def __init__(self, *, secure: bool, embed: bool) -> None:
        if embed:
            self._attributes = "Path=/; HttpOnly; SameSite=None; Secure; Partitioned"
        else:
            self._attributes = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def set(self, response: Response, name: str, value: str, lasts_s: int) -> None:
        """Add a cookie; http.cookies knows `Partitioned` from Python 3.14 on only."""
        cookie = f"{name}={value}; Max-Age={lasts_s}; {self._attributes}"
        response.headers.append("Set-Cookie", cookie)

    def remember(self, response: Response, signed_in: SignedIn) -> None:
        """The browser is signed in from now on."""
        self.set(response, SESSION_COOKIE, signed_in.token, signed_in.lasts_s)
        self.set(response, BROWSER_COOKIE, signed_in.browser, _BROWSER_LASTS_S)

    def forget(self, response: Response) -> None:
        """The browser is signed out; it stays known."""
        self.set(response, SESSION_COOKIE, "", 0)


class Visitors:
    """Requests → users, and the checks that mounted Gradio pages ask for."""

    def __init__(
        self,
        accounts: Accounts,
        *,
        lacks_consent: Callable[[CurrentUser], bool] = lambda _user: False,
    ) -> None:
        """Begin.

        Args:
            lacks_consent: whether somebody has to agree to something before a Gradio page opens.
        """
        self._accounts = accounts
        self._lacks_consent = lacks_consent

    async def current_user(self, request: Request) -> CurrentUser | None:
        """The user whose session the request's cookie opens, if any.

        Raises:
            HTTPException: 503, the database does not answer.
        """
        token = request.cookies.get(SESSION_COOKIE)
        if not token:
            return None
        try:
            return await run_in_threadpool(self._accounts.user_for_token, token)
        except _DATABASE_AWAY as error:
            raise HTTPException(503, _AWAY, {"Retry-After": "5"}) from error

    async def page_user(self, request: Request) -> str:
        """Gradio's `auth_dependency` for any signed-in user: the user's id as text.

        Raises:
            HTTPException: 303 to /login for a page load, 401 for anything else.
        """
        return str((await self._signed_in(request)).id)

    async def researcher_only(self, request: Request) -> str:
        """Gradio's `auth_dependency` for the lab; 403 for others than researchers."""
        user = await self._signed_in(request)
        try:
            require_role(user, "researcher")
        except NotAllowed as error:
            raise HTTPException(403, str(error)) from error
        return str(user.id)

    async def _signed_in(self, request: Request) -> CurrentUser:
        user = await self.current_user(request)
        if user is None:
            if is_page_load(request.scope):
                raise HTTPException(303, headers={"Location": login_path(request)})
            raise HTTPException(401, msg("Please sign in."))
        if self._lacks_consent(user):
            if is_page_load(request.scope):
                here = quote(request.scope["path"], safe="/")
                raise HTTPException(303, headers={"Location": f"{WELCOME_PATH}?next={here}"})
            raise HTTPException(403, _NO_CONSENT)
        return user


def login_path(request: Request) -> str:
    """Where to sign in, and to come back to this page afterwards."""
    here = request.scope["path"]
    if request.url.query:
        here += f"?{request.url.query}"
    return "/login" if here == "/" else f"/login?next={quote(here, safe='/')}"


def client_address(request: Request) -> str:
    """The address that the throttle counts; uvicorn has read the proxy's headers already."""
    return request.client.host if request.client else "unknown"


def status_of(error: AttuneError) -> int:
    """The HTTP status of an expected error."""
    return _STATUS.get(type(error), 500)


async def _expected(request: Request, error: Exception) -> Response:
    if isinstance(error, NotSignedIn) and is_page_load(request.scope):
        return RedirectResponse(login_path(request), 303)
    headers = {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    status = status_of(error) if isinstance(error, AttuneError) else 500
    return JSONResponse({"detail": str(error)}, status, headers)


async def _database_away(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"detail": _AWAY}, 503, {"Retry-After": "5"})


def _serve_assets(app: FastAPI, folder: Path) -> None:
    """One route per file: Gradio's page at `/` has an `/assets/` folder too, which must show."""
    files = StaticFiles(directory=folder)

    async def asset(request: Request) -> Response:
        name = request.scope["path"].removeprefix("/assets/")
        return await files.get_response(name, request.scope)

    for path in sorted(folder.iterdir()):
        if path.is_file():
            app.add_route(f"/assets/{path.name}", asset, methods=["GET"])
