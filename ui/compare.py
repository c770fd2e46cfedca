"""The annotator's page: two responses, a choice, the next pair.

Choosing runs outside Gradio's queue and brings the next pair along when it is ready; only a pair
that has to be written while the user watches goes through the queue. The comparison's id travels
with the browser, so every tab and every restart works; `Desk` checks whose it is.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from backend.wording import msg
from ui import layout
from ui.compare_handlers import DeskServices, Handlers
from ui.compare_parts import Parts, draw
from ui.compare_wishes import Wishes
from ui.layout import DIRECT

_CHIP_REFRESH_S = 4.0
_STREAMS_AT_ONCE = 16
# What is ticked while the tick before is still under way is sent after it; Gradio would drop it.
_TICKED: dict[str, Any] = {**DIRECT, "trigger_mode": "always_last"}
_WRITTEN: dict[str, Any] = {
    "concurrency_id": "generate",
    "concurrency_limit": _STREAMS_AT_ONCE,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",  # the next pair may begin before the last one's stream has ended
}


def build_compare(services: DeskServices) -> gr.Blocks:
    """The page, wired to the use cases."""
    page = layout.blocks(msg("Compare"))
    with page:
        parts = draw()
        handlers = Handlers(parts, services)
        _wire_pair(page, parts, handlers)
        _wire_choices(parts, handlers)
        _wire_asking(parts, handlers)
        _wire_wishes(parts, Wishes(parts, services))
    return page


def _wire_pair(page: gr.Blocks, parts: Parts, handlers: Handlers) -> None:
    """How a pair and the status come to the page."""
    header = [parts.header.account, parts.header.lab, parts.help.use_keys]
    page.load(handlers.greet, None, [*header, *parts.status, parts.notice], **DIRECT)
    gr.on(
        [page.load, parts.hidden.wanted.change, parts.hidden.resume.click],
        handlers.stream,
        None,
        parts.pair,
        **_WRITTEN,
    )
    parts.again.click(handlers.try_again, None, parts.pair, **_WRITTEN)
    parts.stop.click(handlers.stop, parts.hidden.making_key, parts.notice, **DIRECT)
    for side, retry in parts.retries.items():
        retry.click(handlers.retrier(side), parts.hidden.comparison_id, parts.pair, **_WRITTEN)
    gr.Timer(_CHIP_REFRESH_S).tick(handlers.refresh, None, parts.status, **DIRECT)


def _wire_choices(parts: Parts, handlers: Handlers) -> None:
    hidden, thanks = parts.hidden, parts.thanks
    for verdict, button in {**parts.verdicts, "skip": parts.skip}.items():
        button.click(
            handlers.chooser(verdict),
            [hidden.comparison_id, hidden.making_key, hidden.strength],
            parts.after_choice,
            js=f"(id, key) => window.attune.choosing('{verdict}', id, key)",
            **DIRECT,
        )
    hidden.send_kept.click(
        handlers.choose_kept,
        list(hidden.kept),
        parts.after_choice,
        js="() => window.attune.kept()",
        **DIRECT,
    )
    parts.never.click(handlers.never_again, hidden.comparison_id, parts.after_choice, **DIRECT)
    for reason, button in thanks.reasons.items():
        button.click(handlers.explainer(reason), hidden.choice_id, parts.after_choice, **DIRECT)
    thanks.clearly.click(handlers.strengthen, hidden.choice_id, parts.after_choice, **DIRECT)
    thanks.other.click(lambda: gr.Textbox(visible=True), None, thanks.other_text, **DIRECT)
    thanks.other_text.submit(
        handlers.explain_freely,
        [hidden.choice_id, thanks.other_text],
        parts.after_choice,
        **DIRECT,
    )
    parts.undo.click(handlers.undo, None, parts.after_choice, **DIRECT)


def _wire_asking(parts: Parts, handlers: Handlers) -> None:
    """Own prompts and replies."""
    own, hidden = parts.own, parts.hidden
    box = [*own.all, hidden.replying]
    parts.ask_open.click(handlers.open_empty, None, box, **DIRECT)
    parts.thanks.reply.click(handlers.open_own, hidden.choice_id, box, **DIRECT)
    own.cancel.click(handlers.close_own, None, own.all, **DIRECT)
    gr.on(
        [own.text.submit, own.send.click],
        handlers.ask,
        [own.text, hidden.replying],
        parts.pair,
        **_WRITTEN,
    )


def _wire_wishes(parts: Parts, wishes: Wishes) -> None:
    topics = parts.topics
    opened = [topics.panel, topics.liked, parts.notice]
    parts.topics_open.click(wishes.open_topics, None, opened, **DIRECT)
    topics.liked.input(wishes.like, topics.liked, parts.notice, **_TICKED)
    topics.done.click(lambda: gr.Column(visible=False), None, topics.panel, **DIRECT)
    parts.help.use_keys.input(wishes.use_keys, parts.help.use_keys, parts.notice, **_TICKED)
