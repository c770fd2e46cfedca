"""My taste: what it has learnt about me, how sure that is, my choices, my words, my data.

Handlers and wiring. Every handler asks who is calling; ids that come from the browser are checked
by the use cases. Figures are put into words by `taste_words.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backend.auth import Accounts
from backend.choosing import MOST_REASON_CHARACTERS
from backend.history import History
from backend.insights import Insights
from backend.profiles import MOST_CHARACTERS, Profiles
from backend.taste import Tastes
from backend.trying import Trials
from backend.wording import msg
from ui import layout, markup, taste_leanings, taste_words
from ui.language import Language, Languages
from ui.layout import DIRECT
from ui.markup import paragraphs, plain
from ui.session import Attempt, signed_in
from ui.taste_parts import (
    TITLE,
    TRY_NOTE,
    Parts,
    Trying,
    Words,
    draw,
)
from ui.taste_past import PastChoices

Updates = dict[Any, Any]

WORDS_NONE = msg("You have not written anything about yourself.")
WORDS_UNUSED = msg("This server does not use what is written here at present.")
WORDS_SAVED = msg("Saved. The pairs made from now on go by it.")
WORDS_ERASED = msg("Erased. The pairs made from now on do without it.")
TRY_ALIKE = msg(
    "It has not learnt anything from you yet, so both were made alike; they may even match."
)

_REFRESH_S = 15.0
_TRIED_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TasteServices:
    """The use cases this page calls."""

    accounts: Accounts
    insights: Insights
    tastes: Tastes
    history: History
    profiles: Profiles
    trials: Trials
    languages: Languages


def build_taste(services: TasteServices) -> gr.Blocks:
    """The page, wired to the use cases."""
    page = layout.blocks(TITLE)
    with page:
        parts = draw(MOST_CHARACTERS, MOST_REASON_CHARACTERS)
        _Figures(parts, services).wire(page)
        _Words(parts.words, services).wire(page)
        _Trying(parts.trying, services).wire()
        past = PastChoices(
            parts.past,
            accounts=services.accounts,
            history=services.history,
            insights=services.insights,
            languages=services.languages,
        )
        past.wire(page)
    return page


class _Figures:
    def __init__(self, parts: Parts, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self, page: gr.Blocks) -> None:
        """Connect the header and the first three cards."""
        header = self._parts.header
        status = [header.chip, self._parts.notice, *self._parts.figures.all]
        page.load(self.greet, None, [header.account, header.lab, *status], **DIRECT)
        gr.Timer(_REFRESH_S).tick(self.refresh, None, status, **DIRECT)

    def greet(self, request: gr.Request) -> Updates:
        """Header and figures, once per page load."""
        header = self._parts.header
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            return {
                header.account: layout.account_of(user, self._services.languages.of(request)),
                header.lab: gr.Button(visible=user.role in ("researcher", "admin")),
                **self._shown(user.id, self._services.languages.of(request)),
            }
        return {self._parts.notice: plain(attempt.message or "")}

    def refresh(self, request: gr.Request) -> Updates:
        """Figures and status, now and then."""
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            return self._shown(user.id, self._services.languages.of(request))
        return {self._parts.notice: plain(attempt.message or "")}

    def _shown(self, user_id: int, language: Language) -> Updates:
        shown = self._parts.figures
        taste = self._services.tastes.of(user_id)
        leanings = self._services.tastes.leanings(user_id)
        return {
            self._parts.header.chip: layout.chip_of(
                self._services.insights.chip(user_id), language
            ),
            shown.known: plain(taste_words.known_figure(taste, language)),
            shown.known_lines: paragraphs(taste_words.known_lines(taste, language)),
            shown.curve: taste_words.curve_svg(taste, language),
            shown.blind: plain(taste_words.blind_figure(taste, language)),
            shown.blind_lines: paragraphs(taste_words.blind_lines(taste, language)),
            shown.leanings: taste_leanings.chips_html(leanings, language),
            shown.leaning_lines: paragraphs(taste_leanings.lines(leanings, language)),
            self._parts.notice: "",
        }


class _Words:
    def __init__(self, parts: Words, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self, page: gr.Blocks) -> None:
        """Connect the words about oneself."""
        parts = self._parts
        gr.on([page.load, parts.cancel.click], self.read, None, parts.all, **DIRECT)
        parts.edit.click(self.open, None, parts.all, **DIRECT)
        parts.save.click(self.save, parts.text, parts.all, **DIRECT)
        parts.erase.click(self.erase, None, parts.all, **DIRECT)

    def read(self, request: gr.Request) -> Updates:
        """What the user wrote, the box closed."""
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            used = self._services.profiles.used
            return self._closed(user.id, "" if used else WORDS_UNUSED, request)
        return self._say(attempt.message)

    def open(self, request: gr.Request) -> Updates:
        """The box with what stands."""
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            kept = self._services.profiles.read(user.id)
            return {
                self._parts.shown: gr.Markdown(visible=False),
                self._parts.editing: gr.Column(visible=True),
                self._parts.edit: gr.Button(visible=False),
                self._parts.text: kept,
                self._parts.erase: gr.Button(visible=bool(kept)),
                **self._say(None),
            }
        return self._say(attempt.message)

    def save(self, text: str, request: gr.Request) -> Updates:
        """Keep it; on a mistake the box stays open with what was typed."""
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            self._services.profiles.write(user.id, text)
            saved = WORDS_SAVED if self._services.profiles.used else WORDS_UNUSED
            return self._closed(user.id, saved if text.strip() else WORDS_ERASED, request)
        return self._say(attempt.message)

    def erase(self, request: gr.Request) -> Updates:
        """Take it away, wherever it was recorded."""
        return self.save("", request)

    def _closed(self, user_id: int, message: str, request: gr.Request) -> Updates:
        kept = self._services.profiles.read(user_id)
        text = self._services.languages.of(request).text
        return {
            self._parts.shown: gr.Markdown(plain(kept or text(WORDS_NONE)), visible=True),
            self._parts.edit: gr.Button(visible=True),
            self._parts.editing: gr.Column(visible=False),
            self._parts.text: kept,
            **self._say(text(message)),
        }

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}


class _Trying:
    def __init__(self, parts: Trying, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self) -> None:
        """Connect the try-it box."""
        parts = self._parts
        gr.on(
            [parts.ask.click, parts.text.submit],
            self.ask,
            parts.text,
            parts.all,
            concurrency_id="try",
            concurrency_limit=_TRIED_AT_ONCE,
            show_progress="hidden",
            api_visibility="private",
        )

    def ask(self, text: str, request: gr.Request) -> Iterator[Updates]:
        """Both answers as they are written."""
        parts, language = self._parts, self._services.languages.of(request)
        with Attempt(language) as attempt:
            user = signed_in(request, self._services.accounts)
            for tried in self._services.trials.ask(user.id, text):
                yield {
                    parts.answers: gr.Row(visible=True),
                    parts.generic: markup.response(tried.generic),
                    parts.personal: markup.response(tried.personal),
                    parts.notice: plain(language.text(TRY_NOTE if tried.known else TRY_ALIKE)),
                }
        if attempt.message is not None:
            yield {parts.notice: plain(attempt.message)}
