"""Pages drawn by the server with Jinja: how a template becomes a response, and three small ones.

Light on purpose: the waiting page is shown while everything else is still being imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from backend.wording import Counted, msg
from ui.language import COOKIE, Language, Languages

PAGES = ((msg("Compare"), "/"), (msg("My taste"), "/taste/"), (msg("Guide"), "/guide"))
_HERE = Path(__file__).parent
_ERROR_TITLES = {
    403: msg("Not for this account"),
    404: msg("There is nothing here"),
    405: msg("There is nothing here"),
    503: msg("Just a moment"),
}
_FAILED = msg("That did not work")
_GONE = msg("The address may be mistyped, or what stood here has gone.")
_FAULT = msg("Something went wrong on our side. Please try again.")


class ServerPages:
    """Templates → responses that let the browser load our own style sheet and nothing else.

    Args:
        languages: what the pages can be read in.
        embed: the pages are shown in a frame on huggingface.co.
        form_targets: origins besides ours that a form may lead to.
    """

    def __init__(
        self, languages: Languages, *, embed: bool, form_targets: tuple[str, ...] = ()
    ) -> None:
        self.languages = languages
        self._drawn = _Templates(languages)
        framers = "https://huggingface.co" if embed else "'none'"
        targets = " ".join(("'self'", *form_targets))
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
                f"form-action {targets}; frame-ancestors {framers}"
            ),
        }

    def show(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """The template filled with `values`, all of them escaped, in the reader's language."""
        text = self._drawn.draw(request, template, values)
        return HTMLResponse(text, status, self._headers)


class ErrorPage:
    """The page of an HTTP error."""

    def __init__(self, languages: Languages) -> None:
        self._drawn = _Templates(languages)

    def __call__(self, status: int, message: str, request: Request) -> str:
        """The page as HTML; `message` is put into the reader's language where it is known."""
        if message in {"", "Not Found", "Method Not Allowed"}:
            message = _FAULT if status >= 500 else _GONE
        title = _ERROR_TITLES.get(status, _FAILED)
        return self._drawn.draw(request, "error.html", {"title": title, "message": message})


class WaitingPage:
    """The page shown until the app is installed: whole in itself, asks again every 2 s."""

    def __init__(self, languages: Languages) -> None:
        self._drawn = _Templates(languages)
        self._styles = "".join(
            (_HERE / "assets" / name).read_text(encoding="utf-8")
            for name in ("tokens.css", "accounts.css")
        )

    def __call__(self, phase: str, request: Request) -> str:
        """The page as HTML; what is going on is put into words where they are known."""
        return self._drawn.draw(request, "waiting.html", {"phase": phase, "styles": self._styles})


class _Templates:
    """Jinja's templates, for each language that is asked for."""

    def __init__(self, languages: Languages) -> None:
        self._languages = languages
        self._environments: dict[str, Environment] = {}

    def draw(self, request: Request, template: str, values: dict[str, Any]) -> str:
        language = self._languages.of(request)
        known = self._environments.get(language.code)
        if known is None:
            known = self._environments[language.code] = _environment(language)
        return known.get_template(template).render(
            languages=self._languages.offered,
            chosen=self._languages.offers(request.cookies.get(COOKIE, "")),
            address=_address(request),
            **values,
        )


def local_path(target: str) -> str:
    """`target` if it is a path on this very site, else `/`: no link leads a visitor elsewhere."""
    if not target.startswith("/") or target.startswith("//") or "\\" in target:
        return "/"
    if not target.isascii() or not target.isprintable():
        return "/"
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    return "/" if parts.scheme or parts.netloc else target


def _address(request: Request) -> str:
    """Where to come back to after choosing a language: this page, or the form it was sent from."""
    if request.method == "GET" and request.url.query:
        return local_path(f"{request.url.path}?{request.url.query}")
    return local_path(request.url.path)


def _environment(language: Language) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )

    def words(text: str, /, **values: Any) -> Markup:
        """Ours or a catalogue's, so markup in it is meant; values are escaped."""
        return Markup(language.template(text)).format(**language.written(values))  # noqa: S704

    def counted_words(one: str, many: str, *, count: int) -> Markup:
        template = language.template(Counted(one, many), count)
        return Markup(template).format(count=language.number(count))  # noqa: S704

    environment.globals |= {
        "_": words,
        "_n": counted_words,
        "known": language.text,  # escaped, in English where no catalogue has it
        "language": language,
        "pages": PAGES,
    }
    return environment
