"""The annotator's page: two responses, a choice, the next pair.

Choosing runs outside Gradio's queue and brings the next pair along when it is ready; only a pair
that has to be written while the user watches goes through the queue. The comparison's id travels
with the browser, so every tab and every restart works; `Desk` checks whose it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from backend.auth import Accounts
from backend.comparisons import ComparisonView, Desk
from backend.insights import Insights
from ui import layout, markup
from ui.compare_parts import Parts, draw
from ui.markup import plain
from ui.session import Attempt, signed_in

Updates = dict[Any, Any]

_PREFERENCES = ("a", "b")
_CHIP_REFRESH_S = 4.0
_STREAMS_AT_ONCE = 16
_SAVED = {**dict.fromkeys(("a", "b", "tie", "both_bad"), "Saved."), "skip": "Skipped."}
_STILL_WRITING = "One moment: the responses are still being written."


def build_compare(desk: Desk, insights: Insights, accounts: Accounts) -> gr.Blocks:
    """The page, wired to the use cases."""
    page = layout.blocks("Compare")
    with page:
        parts = draw()
        _wire(page, parts, _Handlers(parts, desk, insights, accounts))
    return page


class _Handlers:
    """What each event does. Only `gr.Request` says who is asking."""

    def __init__(self, parts: Parts, desk: Desk, insights: Insights, accounts: Accounts) -> None:
        self._parts = parts
        self._desk = desk
        self._insights = insights
        self._accounts = accounts

    def greet(self, request: gr.Request) -> Updates:
        """Header and status, once per page load."""
        with Attempt() as attempt:
            user = signed_in(request, self._accounts)
            may_see_lab = user.role in ("researcher", "admin")
            return {
                self._parts.header.account: layout.account_of(user),
                self._parts.header.lab: gr.Button(visible=may_see_lab),
                **self._status(user.id),
            }
        return self._say(attempt.message)

    def refresh(self, request: gr.Request) -> Updates:
        """The status chip, every few seconds."""
        with Attempt() as attempt:
            return self._status(signed_in(request, self._accounts).id)
        return self._say(attempt.message)

    def stream(self, request: gr.Request) -> Iterator[Updates]:
        """The open pair at once, or a new one as it is being written."""
        yield from self._watch(request, self._desk.stream, {}, stuck=True)

    def ask(self, text: str, request: gr.Request) -> Iterator[Updates]:
        """The user's own prompt; the box stays open with its text when it cannot be used."""
        closed: Updates = {self._parts.own: gr.Row(visible=False), self._parts.own_text: ""}
        yield from self._watch(
            request, lambda user_id: self._desk.ask(user_id, text), closed, stuck=False
        )

    def chooser(self, verdict: str) -> Callable[..., Updates]:
        """The handler of one verdict's button."""

        def choose(comparison_id: int | None, strength: int | None, request: gr.Request) -> Updates:
            return self._choose(request, comparison_id, verdict, strength)

        return choose

    def explainer(self, reason: str) -> Callable[..., Updates]:
        """The handler of one reason's button; may be ignored by everybody."""

        def explain(choice_id: int | None, request: gr.Request) -> Updates:
            with Attempt() as attempt:
                user = signed_in(request, self._accounts)
                if choice_id is None:
                    return {self._parts.why: gr.Row(visible=False)}
                explained = self._desk.explain(user.id, choice_id, reason)
                return {self._parts.choice_id: explained, **self._reasons(reason)}
            return self._say(attempt.message)

        return explain

    def undo(self, request: gr.Request) -> Updates:
        """The last choice withdrawn, its pair shown again."""
        with Attempt() as attempt:
            user = signed_in(request, self._accounts)
            view = self._desk.undo(user.id)
            return {**self._show(view), **self._thanks(None, ""), **self._status(user.id)}
        return self._say(attempt.message)

    def _choose(
        self, request: gr.Request, comparison_id: int | None, verdict: str, strength: int | None
    ) -> Updates:
        if comparison_id is None:
            return self._say(_STILL_WRITING)
        with Attempt() as attempt:
            user_id = signed_in(request, self._accounts).id
            thanks: Updates = {}
            with Attempt() as choosing:
                if verdict not in _PREFERENCES:
                    strength = None
                choice_id = self._desk.choose(user_id, comparison_id, verdict, strength)
                thanks = self._thanks(choice_id, verdict)
            return {
                **self._next(user_id),
                **thanks,
                **self._status(user_id),
                **self._say(choosing.message),
            }
        return self._say(attempt.message)

    def _watch(
        self,
        request: gr.Request,
        views: Callable[[int], Iterator[ComparisonView]],
        on_first: Updates,
        *,
        stuck: bool,
    ) -> Iterator[Updates]:
        """Draws `views` as they grow; an error leaves a way to go on."""
        with Attempt() as attempt:
            for view in views(signed_in(request, self._accounts).id):
                yield {**self._show(view), **on_first}
                on_first, stuck = {}, not view.complete
        if attempt.message is not None:
            yield {**self._say(attempt.message), self._parts.again: gr.Button(visible=stuck)}

    def _next(self, user_id: int) -> Updates:
        """The next pair if it is ready; else empty cards and the wish for one."""
        view = self._desk.ready(user_id)
        if view is not None:
            return self._show(view)
        empty = ComparisonView(None, "", "", False, "", "", complete=False)
        return {**self._show(empty), self._parts.wanted: time.monotonic_ns()}

    def _show(self, view: ComparisonView) -> Updates:
        parts = self._parts
        ready = view.complete and view.comparison_id is not None
        return {
            parts.topic: plain(view.topic),
            parts.prompt: f"# {plain(view.prompt)}" if view.prompt else "",
            parts.texts["a"]: markup.response(view.text_a),
            parts.texts["b"]: markup.response(view.text_b),
            parts.comparison_id: view.comparison_id if ready else None,
            **{button: gr.Button(interactive=ready) for button in parts.deciding},
            parts.again: gr.Button(visible=False),
            parts.notice: "",
        }

    def _thanks(self, choice_id: int | None, verdict: str) -> Updates:
        """The line under the pair about the choice just made; None: there is none."""
        return {
            self._parts.saved: _SAVED.get(verdict, ""),
            self._parts.why: gr.Row(visible=verdict in _PREFERENCES),
            self._parts.choice_id: choice_id,
            **self._reasons(None),
        }

    def _reasons(self, given: str | None) -> Updates:
        return {
            button: gr.Button(
                variant="primary" if reason == given else "secondary",
                interactive=reason != given,
            )
            for reason, button in self._parts.reasons.items()
        }

    def _status(self, user_id: int) -> Updates:
        chip = self._insights.chip(user_id)
        return {
            self._parts.header.chip: layout.chip_of(chip),
            self._parts.count: plain(layout.choices_text(chip.choices)),
        }

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}


def _wire(page: gr.Blocks, parts: Parts, handlers: _Handlers) -> None:
    """Events to handlers. `direct`: outside the queue, for what answers at once."""
    direct: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    written: dict[str, Any] = {
        "concurrency_id": "generate",
        "concurrency_limit": _STREAMS_AT_ONCE,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    header = [parts.header.account, parts.header.lab]
    page.load(handlers.greet, None, [*header, *parts.status, parts.notice], **direct)
    gr.on(
        [page.load, parts.wanted.change, parts.again.click],
        handlers.stream,
        None,
        parts.pair,
        **written,
    )
    gr.on(
        [parts.own_text.submit, parts.own_send.click],
        handlers.ask,
        parts.own_text,
        parts.pair,
        **written,
    )
    for verdict, button in {**parts.verdicts, "skip": parts.skip}.items():
        button.click(
            handlers.chooser(verdict),
            [parts.comparison_id, parts.strength],
            parts.after_choice,
            js="(id) => [id, window.attune.strength()]",
            **direct,
        )
    for reason, button in parts.reasons.items():
        button.click(handlers.explainer(reason), parts.choice_id, parts.after_choice, **direct)
    parts.undo.click(handlers.undo, None, parts.after_choice, **direct)
    parts.ask_open.click(lambda: gr.Row(visible=True), None, parts.own, **direct)
    parts.own_cancel.click(
        lambda: (gr.Row(visible=False), ""), None, [parts.own, parts.own_text], **direct
    )
    gr.Timer(_CHIP_REFRESH_S).tick(handlers.refresh, None, [*parts.status, parts.notice], **direct)
