"""The pages put together: one header, one look, mounted on the web app.

All type, space and colour come from `assets/tokens.css`; `assets/gradio.css` maps Gradio's own
variables to them. Knows no use case: the pages are built in `compare.py`, `taste.py` and `lab.py`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse

from backend.auth import CurrentUser
from backend.insights import Chip
from backend.wording import Counted, msg
from ui.language import Language, Languages, english, later
from ui.markup import plain
from ui.server_pages import PAGES
from ui.translated import Translated

AuthDependency = Callable[[Request], Awaitable[str | None]]

ASSETS = Path(__file__).parent / "assets"
_MARK = (
    '<svg viewBox="0 0 26 20" fill="none" stroke-width="2.2" stroke-linecap="round" '
    'aria-hidden="true"><path d="M2 10h3c2 0 2-7 4-7s2 14 4 14 2-11 4-11 2 4 4 4h3"/></svg>'
)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='-3 -6 32 32' "
    "fill='none' stroke='%236a5ff0' stroke-width='3' stroke-linecap='round'%3E%3Cpath "
    "d='M2 10h3c2 0 2-7 4-7s2 14 4 14 2-11 4-11 2 4 4 4h3'/%3E%3C/svg%3E"
)
_GUEST = msg("guest")
_VERSION = msg("version {version}")
_CHOICES = Counted("{count} choice", "{count} choices")
_SCRIPT_TEXT = re.compile(r'\bmsg\("(.*?)"\)')
QUEUE_SIZE = 64
# How events are wired that answer at once: outside the queue.
DIRECT: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
_TEMPORARY_FILES_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Header:
    """The parts of the header that are filled per user."""

    chip: gr.Markdown
    lab: gr.Button
    account: gr.Button


def blocks(title: str) -> gr.Blocks:
    """An empty page with the options every page has."""
    return gr.Blocks(
        title=f"{later(title)} · Attune",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_TEMPORARY_FILES_S, _TEMPORARY_FILES_S),
    )


def header(active: str) -> Header:
    """Brand, pages, status chip and account; call inside a page's `with` block."""
    links = "".join(
        f'<a href="{path}"{_current(name == active)}>{later(name)}</a>' for name, path in PAGES
    )
    with gr.Row(elem_id="header"):
        gr.HTML(f'<a class="brand" href="/">{_MARK}attune</a><nav>{links}</nav>', elem_id="brand")
        lab = gr.Button(
            later(msg("Lab")),
            link="/lab/",
            visible=active == "Lab",
            elem_id="lab-link",
            elem_classes=["on"] if active == "Lab" else [],
        )
        chip = gr.Markdown("", elem_id="chip")
        account = gr.Button("", link="/account", elem_id="account")
    return Header(chip, lab, account)


def _current(active: bool) -> str:
    return ' class="on" aria-current="page"' if active else ""


def account_of(user: CurrentUser, language: Language) -> gr.Button:
    """The account button's update: two letters of the name."""
    letters = language.text(_GUEST) if user.is_guest else user.username[:2].upper()
    return gr.Button(value=letters, link="/account")


def chip_of(chip: Chip, language: Language) -> dict[str, Any]:
    """The status chip's update: live version, own choices, what the next one waits for."""
    version = plain(language.text(_VERSION, version=str(chip.version)))
    choices = plain(choices_text(chip.choices, language))
    return gr.update(
        value=f"{version} *· {choices}* · {plain(language.sentence(chip.until_next))}",
        elem_classes=["learning"] if chip.training else ["live"],
    )


def choices_text(count: int, language: Language) -> str:
    return language.text(_CHOICES, count=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Gradio's pages."""

    compare: gr.Blocks
    taste: gr.Blocks
    lab: gr.Blocks


def mount(
    web_app: FastAPI,
    pages: Pages,
    *,
    languages: Languages,
    signed_in: AuthDependency,
    researcher: AuthDependency,
) -> None:
    """Puts each page at its path, behind its own dependency: lab, My taste, and compare at `/`.

    `/` catches everything: call this after all other routes were added. The lab is in English.
    """
    for path, page, may_enter, language_of in (
        ("/lab", pages.lab, researcher, lambda _request: english()),
        ("/taste", pages.taste, signed_in, languages.of),
        ("/", pages.compare, signed_in, languages.of),
    ):
        if path != "/":
            web_app.add_route(path, _to_folder, methods=["GET"])
        page.queue(api_open=False, max_size=QUEUE_SIZE)
        gr.mount_gradio_app(
            web_app,
            page,
            path,
            auth_dependency=may_enter,
            theme=gr.themes.Base(font=["system-ui"], font_mono=["ui-monospace"]),
            head=_head(),
            footer_links=[],
            run_history=False,
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            allowed_paths=[],
            max_file_size="1mb",
            app_kwargs={"middleware": [Middleware(Translated, language_of=language_of)]},
        )


def _to_folder(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.url.path}/", 308)


def _head() -> str:
    """Our style sheets and scripts, inline: one request, no flash of another look."""
    styles = "\n".join(
        (ASSETS / name).read_text(encoding="utf-8")
        for name in ("tokens.css", "gradio.css", "compare.css", "taste.css", "lab.css")
    )
    script = "\n".join(
        (ASSETS / name).read_text(encoding="utf-8")
        for name in (
            "language.js",
            "connection.js",
            "status.js",
            "scrollers.js",
            "keys.js",
            "past.js",
        )
    )
    script = _SCRIPT_TEXT.sub(lambda found: f'"{later(found[1])}"', script)
    return f'<link rel="icon" href="{_ICON}"><style>{styles}</style><script>{script}</script>'
