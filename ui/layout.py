"""The pages put together: one header, one look, mounted on the web app.

All type, space and colour come from `assets/tokens.css`; `assets/gradio.css` maps Gradio's own
variables to them. Knows no use case: the pages are built in `compare.py`, `taste.py` and `lab.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gradio as gr
from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse

from backend.auth import CurrentUser
from backend.insights import Chip
from ui.markup import plain

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
QUEUE_SIZE = 64
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
        title=f"{title} · Attune",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_TEMPORARY_FILES_S, _TEMPORARY_FILES_S),
    )


def header(active: Literal["Compare", "My taste", "Guide", "Lab"]) -> Header:
    """Brand, pages, status chip and account; call inside a page's `with` block."""
    links = "".join(
        f'<a href="{path}"{_current(name == active)}>{name}</a>'
        for name, path in (("Compare", "/"), ("My taste", "/taste/"), ("Guide", "/guide"))
    )
    with gr.Row(elem_id="header"):
        gr.HTML(f'<a class="brand" href="/">{_MARK}attune</a><nav>{links}</nav>', elem_id="brand")
        lab = gr.Button(
            "Lab",
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


def account_of(user: CurrentUser) -> gr.Button:
    """The account button's update: two letters of the name."""
    letters = [part[0] for part in user.username.split() if part[0].isalnum()][:2]
    initials = "".join(letters) if len(letters) == 2 else user.username[:2]
    return gr.Button(value="guest" if user.is_guest else initials.upper(), link="/account")


def chip_of(chip: Chip) -> gr.Markdown:
    """The status chip's update: live version, own choices, what the next one waits for."""
    return gr.Markdown(
        f"version {chip.version} *· {choices_text(chip.choices)}* · {plain(chip.until_next)}",
        elem_classes=["learning"] if chip.training else ["live"],
    )


def choices_text(count: int) -> str:
    return "1 choice" if count == 1 else f"{count} choices"


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
    signed_in: AuthDependency,
    researcher: AuthDependency,
) -> None:
    """Puts each page at its path, behind its own dependency: lab, My taste, and compare at `/`.

    `/` catches everything: call this after all other routes were added.
    """
    for path, page, may_enter in (
        ("/lab", pages.lab, researcher),
        ("/taste", pages.taste, signed_in),
        ("/", pages.compare, signed_in),
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
        for name in ("connection.js", "status.js", "scrollers.js", "keys.js")
    )
    return f'<link rel="icon" href="{_ICON}"><style>{styles}</style><script>{script}</script>'
