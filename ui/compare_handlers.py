"""What each event of the compare page does. Only `gr.Request` says who is asking."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gradio as gr

from backend.auth import Accounts
from backend.choosing import PREFERENCES
from backend.comparison_views import EMPTY_VIEW, ComparisonView
from backend.comparisons import Desk
from backend.insights import Insights
from backend.preferences import DeskPreferences
from backend.wording import msg
from ui import layout
from ui.compare_drawing import (
    Updates,
    clearly_drawn,
    pair_drawn,
    reasons_drawn,
    thanks_drawn,
)
from ui.compare_parts import OWN_HINT, Parts
from ui.compare_texts import TOLD, goal, utc_offset_minutes
from ui.language import Language, Languages
from ui.markup import plain
from ui.session import Attempt, signed_in

_SAVED = msg("Saved.")
_SKIPPED = msg("Skipped.")
_REFUSED = msg("You will not get this prompt again.")
_SAVED_KEPT = msg("Your choice from before was saved.")
_STILL_WRITING = msg("One moment: the responses are still being written.")
_REPLY_HINT = msg("What would you like to say next?")


@dataclass(frozen=True, slots=True)
class DeskServices:
    """The use cases this page calls, and the languages it is read in."""

    desk: Desk
    preferences: DeskPreferences
    insights: Insights
    accounts: Accounts
    languages: Languages


class Handlers:
    """One method per event; each returns the components to change."""

    def __init__(self, parts: Parts, services: DeskServices) -> None:
        self._parts = parts
        self._desk = services.desk
        self._preferences = services.preferences
        self._insights = services.insights
        self._accounts = services.accounts
        self._languages = services.languages
        self._tickets = itertools.count()
        self._drawing: dict[str, int] = {}  # browser session → who may draw its pair

    def greet(self, request: gr.Request) -> Updates:
        """Header, keys and status, once per page load."""
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            may_see_lab = user.role in ("researcher", "admin")
            return {
                self._parts.header.account: layout.account_of(user, self._languages.of(request)),
                self._parts.header.lab: gr.Button(visible=may_see_lab),
                self._parts.help.use_keys: self._preferences.of(user.id).keys,
                **self._status(user.id, request),
            }
        return self._say(attempt.message)

    def refresh(self, request: gr.Request) -> Updates:
        """The status chip, every few seconds; what keeps it from that, it says itself."""
        with Attempt(self._languages.of(request)) as attempt:
            return self._status(signed_in(request, self._accounts).id, request)
        return {self._parts.header.chip: plain(attempt.message or "")}

    def stream(self, request: gr.Request) -> Iterator[Updates]:
        """The open pair at once, or a new one as it is being written."""
        yield from self._watch(request, self._desk.stream, {}, stuck=True)

    def try_again(self, request: gr.Request) -> Iterator[Updates]:
        """The same after it failed."""
        yield from self._watch(request, self._desk.stream, self._say(None), stuck=True)

    def ask(self, text: str, replying: int | None, request: gr.Request) -> Iterator[Updates]:
        """The user's own prompt or reply; the box keeps its text when it cannot be used."""
        closed = {**self.close_own(), **self._say(None)}

        def views(user_id: int) -> Iterator[ComparisonView]:
            if replying is None:
                return self._desk.ask(user_id, text)
            return self._desk.follow_up(user_id, replying, text)

        yield from self._watch(request, views, closed, stuck=False)

    def open_empty(self, request: gr.Request) -> Updates:
        """The box for an own prompt."""
        return self.open_own(None, request)

    def open_own(self, replying: int | None, request: gr.Request) -> Updates:
        """The box for an own prompt, or for a reply to the response preferred last."""
        hint = OWN_HINT if replying is None else _REPLY_HINT
        return {
            self._parts.own.row: gr.Row(visible=True),
            self._parts.own.text: gr.Textbox(placeholder=self._languages.of(request).text(hint)),
            self._parts.hidden.replying: replying,
        }

    def close_own(self) -> Updates:
        return {self._parts.own.row: gr.Row(visible=False), self._parts.own.text: ""}

    def stop(self, making_key: int | None, request: gr.Request) -> Updates:
        """The texts stay as they are; whoever watches draws the pair to choose from."""
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            if making_key is not None:
                self._desk.stop(user.id, making_key)
        return self._say(attempt.message)

    def retrier(self, side: str) -> Callable[..., Updates]:
        """The handler of one side's second try."""

        def write_again(comparison_id: int | None, request: gr.Request) -> Updates:
            language = self._languages.of(request)
            with Attempt(language) as attempt:
                user = signed_in(request, self._accounts)
                if comparison_id is None:
                    return self._say(language.text(_STILL_WRITING))
                with Attempt(language) as writing:
                    view = self._desk.write_again(user.id, comparison_id, side.upper())
                    return {**self._show(view, request), **self._say(None)}
                return {**self._next(user.id, request), **self._say(writing.message)}
            return self._say(attempt.message)

        return write_again

    def chooser(self, verdict: str) -> Callable[..., Updates]:
        """The handler of one verdict's button."""

        def choose(
            comparison_id: int | None,
            making_key: int | None,
            strength: int | None,
            request: gr.Request,
        ) -> Updates:
            if verdict not in PREFERENCES:
                strength = None
            if comparison_id is not None:
                return self._after(
                    request,
                    lambda user: self._desk.choose(user, comparison_id, verdict, strength),
                    _SKIPPED if verdict == "skip" else _SAVED,
                    verdict,
                    strength,
                )
            if making_key is None:
                return self._say(self._languages.of(request).text(_STILL_WRITING))
            return self._choose_early(request, making_key, verdict, strength)

        return choose

    def choose_kept(
        self,
        comparison_id: int | None,
        verdict: str | None,
        strength: int | None,
        request: gr.Request,
    ) -> Updates:
        """A choice the browser kept while it could not be sent."""
        if comparison_id is None or verdict is None:
            return self._say(None)
        return self._after(
            request,
            lambda user: self._desk.choose_kept(
                user, comparison_id, verdict, strength if verdict in PREFERENCES else None
            ),
            _SAVED_KEPT,
            verdict,
            strength,
        )

    def never_again(self, comparison_id: int | None, request: gr.Request) -> Updates:
        """Skip the pair and refuse its prompt."""
        if comparison_id is None:
            return self._say(self._languages.of(request).text(_STILL_WRITING))
        return self._after(
            request,
            lambda user: self._desk.never_again(user, comparison_id),
            _REFUSED,
            "skip",
        )

    def explainer(self, reason: str) -> Callable[..., Updates]:
        """The handler of one reason's button; may be ignored by everybody."""

        def explain(choice_id: int | None, request: gr.Request) -> Updates:
            return self._explain(choice_id, reason, reason, request)

        return explain

    def explain_freely(
        self, choice_id: int | None, reason: str | None, request: gr.Request
    ) -> Updates:
        """A reason in the user's own words."""
        return self._explain(choice_id, reason or "", None, request)

    def strengthen(self, choice_id: int | None, request: gr.Request) -> Updates:
        """It was clear: for those who hold no Shift key."""
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            if choice_id is None:
                return self._say(None)
            return {
                self._parts.hidden.choice_id: self._desk.strengthen(user.id, choice_id),
                self._parts.thanks.clearly: clearly_drawn(given=True),
                **self._say(None),
            }
        return self._say(attempt.message)

    def undo(self, request: gr.Request) -> Updates:
        """The last choice withdrawn, its pair shown again."""
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            view = self._desk.undo(user.id)
            return {
                **self._show(view, request),
                **thanks_drawn(self._parts, None, ""),
                **self._status(user.id, request),
                **self._say(None),
            }
        return self._say(attempt.message)

    def _after(
        self,
        request: gr.Request,
        act: Callable[[int], int],
        said: str,
        verdict: str,
        strength: int | None = None,
    ) -> Updates:
        """Do what makes a choice, then show the next pair and what became of the last."""
        language = self._languages.of(request)
        with Attempt(language) as attempt:
            user_id = signed_in(request, self._accounts).id
            thanks: Updates = {}
            with Attempt(language) as choosing:
                choice_id = act(user_id)
                said = self._told(user_id, choice_id, verdict, said, language)
                thanks = thanks_drawn(self._parts, choice_id, said, verdict, strength)
            return {
                **self._next(user_id, request),
                **thanks,
                **self._status(user_id, request),
                **self._say(choosing.message),
            }
        return self._say(attempt.message)

    def _choose_early(
        self, request: gr.Request, making_key: int, verdict: str, strength: int | None
    ) -> Updates:
        """A choice on a pair still being written. `stream` draws the next one: it comes after
        whatever of this one is still on its way to the page.
        """
        language = self._languages.of(request)
        with Attempt(language) as attempt:
            user_id = signed_in(request, self._accounts).id
            self._drawing.pop(str(request.session_hash), None)
            choice_id = self._desk.choose_early(user_id, making_key, verdict, strength)
            said = _SKIPPED if verdict == "skip" else _SAVED
            said = self._told(user_id, choice_id, verdict, said, language)
            return {
                **self._show(EMPTY_VIEW, request),
                **thanks_drawn(self._parts, choice_id, said, verdict, strength),
                **self._status(user_id, request),
                **self._say(None),
                self._parts.hidden.wanted: time.monotonic_ns(),
            }
        return {**self._say(attempt.message), self._parts.hidden.wanted: time.monotonic_ns()}

    def _told(
        self, user_id: int, choice_id: int, verdict: str, said: str, language: Language
    ) -> str:
        """With whose side was whose, if the study tells; a skip leaves the pair as it is."""
        whose = self._desk.reveal(user_id, choice_id) if verdict != "skip" else None
        told = () if whose is None else (TOLD[whose],)
        return " ".join(language.text(text) for text in (said, *told))

    def _explain(
        self, choice_id: int | None, reason: str, chip: str | None, request: gr.Request
    ) -> Updates:
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            if choice_id is None:
                return {self._parts.thanks.why: gr.Row(visible=False)}
            explained = self._desk.explain(user.id, choice_id, reason)
            thanks = self._parts.thanks
            return {
                self._parts.hidden.choice_id: explained,
                **reasons_drawn(self._parts, chip),
                thanks.other: gr.Button(variant="secondary" if chip else "primary"),
                thanks.other_text: gr.Textbox(visible=False, value=""),
                **self._say(None),
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
        """Draws `views` as they grow, until somebody else draws on this page; an error leaves a
        way to go on.
        """
        page, ticket = str(request.session_hash), next(self._tickets)
        drawing = False
        try:
            with Attempt(self._languages.of(request)) as attempt:
                for view in views(signed_in(request, self._accounts).id):
                    if not drawing:
                        self._drawing[page] = ticket
                    elif self._drawing.get(page) != ticket:
                        return
                    drawing = True
                    yield {**self._show(view, request), **on_first}
                    on_first, stuck = {}, not view.complete
        finally:
            if self._drawing.get(page) == ticket:
                del self._drawing[page]
        if attempt.message is not None:
            yield {
                **self._say(attempt.message),
                self._parts.again: gr.Button(visible=stuck),
                **(
                    {self._parts.progress: "", self._parts.stop: gr.Button(visible=False)}
                    if stuck
                    else {}
                ),
            }

    def _next(self, user_id: int, request: gr.Request) -> Updates:
        """The next pair if it is ready; else empty cards and the wish for one."""
        view = self._desk.ready(user_id)
        if view is not None:
            return self._show(view, request)
        return {**self._show(EMPTY_VIEW, request), self._parts.hidden.wanted: time.monotonic_ns()}

    def _show(self, view: ComparisonView, request: gr.Request) -> Updates:
        return pair_drawn(self._parts, view, self._languages.of(request))

    def _status(self, user_id: int, request: gr.Request) -> Updates:
        language = self._languages.of(request)
        chip = self._insights.chip(user_id)
        today = self._preferences.today(user_id, utc_offset_minutes(request.cookies))
        return {
            self._parts.header.chip: layout.chip_of(chip, language),
            self._parts.count: goal(today, language),
        }

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}
