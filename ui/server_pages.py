"""Pages drawn by the server with Jinja: how a template becomes a response, and three small ones.

Light on purpose: the waiting page is shown while everything else is still being imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

_HERE = Path(__file__).parent
_ERROR_TITLES = {
    403: "Not for this account",
    404: "There is nothing here",
    405: "There is nothing here",
    503: "Just a moment",
}


class ServerPages:
    """Templates → responses that let the browser load our own style sheet and nothing else.

    Args:
        embed: the pages are shown in a frame on huggingface.co.
        form_targets: origins besides ours that a form may lead to.
    """

    def __init__(self, *, embed: bool, form_targets: tuple[str, ...] = ()) -> None:
        self._environment = _environment()
        framers = "https://huggingface.co" if embed else "'none'"
        targets = " ".join(("'self'", *form_targets))
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
                f"form-action {targets}; frame-ancestors {framers}"
            ),
        }

    def show(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The template filled with `values`, all of them escaped."""
        text = self._environment.get_template(template).render(**values)
        return HTMLResponse(text, status, self._headers)


def waiting_page(phase: str) -> str:
    """The page shown until the app is installed: whole in itself, asks again every 2 s."""
    return _standalone("waiting.html", phase=phase)


def error_page(status: int, message: str) -> str:
    """The page of an HTTP error."""
    title = _ERROR_TITLES.get(status, "That did not work")
    if message in {"", "Not Found", "Method Not Allowed"}:
        message = "The address may be mistyped, or what stood here has gone."
    return _environment().get_template("error.html").render(title=title, message=message)


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


def _standalone(template: str, **values: str) -> str:
    styles = "".join(
        (_HERE / "assets" / name).read_text(encoding="utf-8")
        for name in ("tokens.css", "accounts.css")
    )
    return _environment().get_template(template).render(styles=styles, **values)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
