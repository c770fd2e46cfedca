"""My taste: what it has learnt about me, how sure that is, my choices, my words, my data.

Handlers and wiring. Every handler asks who is calling; ids that come from the browser are checked
by the use cases. Figures are put into words by `taste_words.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backend.auth import Accounts
from backend.choosing import MOST_REASON_CHARACTERS, PREFERENCES
from backend.errors import Conflict
from backend.history import ChoiceRow, History
from backend.insights import Insights
from backend.profiles import MOST_CHARACTERS, Profiles
from backend.taste import Tastes
from backend.trying import Trials
from backend.wording import msg
from ui import layout, markup, taste_leanings, taste_words
from ui.compare_parts import REASONS
from ui.compare_texts import conversation
from ui.language import Language, Languages
from ui.markup import plain
from ui.session import Attempt, signed_in
from ui.taste_parts import (
    ROWS,
    STRENGTHS,
    TITLE,
    TRY_NOTE,
    VERDICTS,
    Parts,
    Past,
    Trying,
    Words,
    draw,
)

Updates = dict[Any, Any]

WORDS_NONE = msg("You have not written anything about yourself.")
WORDS_UNUSED = msg("This server does not use what is written here at present.")
WORDS_SAVED = msg("Saved. The pairs made from now on go by it.")
WORDS_ERASED = msg("Erased. The pairs made from now on do without it.")
TRY_ALIKE = msg(
    "It has not learnt anything from you yet, so both were made alike; they may even match."
)
NOTHING_FOUND = msg("No choice of yours contains this.")
NO_CHOICES = msg("You have not made any choice yet.")
PLACE = msg("{first}–{last} of {count}")
CHANGED = msg("Saved. From the next time it learns, this is what counts.")
CLEARLY = msg("{verdict}, clearly")
WITH_REASON = msg("{verdict} · {reason}")

_REFRESH_S = 15.0
_TRIED_AT_ONCE = 4
_LIST_PROMPT_CHARACTERS = 200
_SLIGHTLY = 1
_SHOW_PANEL = "() => window.attune.pastOpened({number})"
# Outside the queue, for what answers at once.
_DIRECT: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}


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
        _Past(parts.past, services).wire(page)
    return page


class _Figures:
    def __init__(self, parts: Parts, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self, page: gr.Blocks) -> None:
        """Connect the header and the first three cards."""
        header = self._parts.header
        status = [header.chip, self._parts.notice, *self._parts.figures.all]
        page.load(self.greet, None, [header.account, header.lab, *status], **_DIRECT)
        gr.Timer(_REFRESH_S).tick(self.refresh, None, status, **_DIRECT)

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
            shown.known_lines: _paragraphs(taste_words.known_lines(taste, language)),
            shown.curve: taste_words.curve_svg(taste, language),
            shown.blind: plain(taste_words.blind_figure(taste, language)),
            shown.blind_lines: _paragraphs(taste_words.blind_lines(taste, language)),
            shown.leanings: taste_leanings.chips_html(leanings, language),
            shown.leaning_lines: _paragraphs(taste_leanings.lines(leanings, language)),
            self._parts.notice: "",
        }


class _Words:
    def __init__(self, parts: Words, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self, page: gr.Blocks) -> None:
        """Connect the words about oneself."""
        parts = self._parts
        gr.on([page.load, parts.cancel.click], self.read, None, parts.all, **_DIRECT)
        parts.edit.click(self.open, None, parts.all, **_DIRECT)
        parts.save.click(self.save, parts.text, parts.all, **_DIRECT)
        parts.erase.click(self.erase, None, parts.all, **_DIRECT)

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


class _Past:
    def __init__(self, parts: Past, services: TasteServices) -> None:
        self._parts = parts
        self._services = services

    def wire(self, page: gr.Blocks) -> None:
        """Connect the list and the panel."""
        parts = self._parts
        where, every = [parts.search, parts.offset], [*parts.list_parts, *parts.panel_parts]
        page.load(self.turner(0), where, every, **_DIRECT)
        parts.newer.click(self.turner(-1), where, every, **_DIRECT)
        parts.older.click(self.turner(1), where, every, **_DIRECT)
        parts.search.change(self.search, parts.search, every, **_DIRECT)
        for number, slot in enumerate(parts.slots):
            opened = slot.edit.click(self.opener(number), parts.ids, every, **_DIRECT)
            opened.then(None, None, None, js=_SHOW_PANEL.format(number=number))
        parts.verdict.input(self.follow_verdict, parts.verdict, parts.strength, **_DIRECT)
        parts.save.click(self.save, parts.entered, every, **_DIRECT)
        parts.cancel.click(self.close, None, every, **_DIRECT)

    def turner(self, pages: int) -> Callable[..., Updates]:
        """The handler that goes so many pages on; 0 shows the same one again."""

        def turn(search: str, offset: float | None, request: gr.Request) -> Updates:
            with Attempt(self._services.languages.of(request)) as attempt:
                user = signed_in(request, self._services.accounts)
                wanted = max(0, int(offset or 0) + pages * ROWS)
                return self._page(user.id, search, wanted, request)
            return self._say(attempt.message)

        return turn

    def search(self, search: str, request: gr.Request) -> Updates:
        """The first page of what contains it."""
        with Attempt(self._services.languages.of(request)) as attempt:
            user = signed_in(request, self._services.accounts)
            return self._page(user.id, search, 0, request)
        return self._say(attempt.message)

    def opener(self, number: int) -> Callable[..., Updates]:
        """The handler of one line's button."""

        def open_line(ids: str, request: gr.Request) -> Updates:
            with Attempt(self._services.languages.of(request)) as attempt:
                user = signed_in(request, self._services.accounts)
                return self._open(user.id, _number_at(ids, number), request)
            return self._say(attempt.message)

        return open_line

    def save(self, entered: dict[Any, Any], request: gr.Request) -> Updates:
        """A new choice in place of the old one; on a mistake the panel keeps what was entered.

        Where the choice was changed elsewhere meanwhile, the panel shows how it stands now.
        """
        parts, language = self._parts, self._services.languages.of(request)
        with Attempt(language) as attempt:
            user = signed_in(request, self._services.accounts)
            comparison_id = int(entered[parts.comparison_id] or 0)
            try:
                self._services.history.change(
                    user.id,
                    comparison_id,
                    int(entered[parts.choice_id] or 0),
                    verdict=entered[parts.verdict] or "",
                    strength=entered[parts.strength],
                    reason=entered[parts.reason] or "",
                )
                panel = {**self._closed(), **self._say(language.text(CHANGED))}
            except Conflict as error:
                panel = self._open(user.id, comparison_id, request)
                panel |= self._say(language.sentence(error.sentence))
            offset = int(entered[parts.offset] or 0)
            return {**self._page(user.id, entered[parts.search], offset, request), **panel}
        return self._say(attempt.message)

    def close(self) -> Updates:
        """Leave the choice as it is."""
        return {**self._closed(), **self._say(None)}

    def follow_verdict(self, verdict: str | None) -> Updates:
        """How much better is asked of a preference only."""
        return {self._parts.strength: gr.Radio(visible=verdict in PREFERENCES)}

    def _page(self, user_id: int, search: str, offset: int, request: gr.Request) -> Updates:
        parts, language = self._parts, self._services.languages.of(request)
        page = self._services.history.page(user_id, search or "", offset=offset, limit=ROWS)
        steady = self._services.insights.consistency(user_id)
        updates: Updates = {}
        for number, slot in enumerate(parts.slots):
            row = page.rows[number] if number < len(page.rows) else None
            updates[slot.row] = gr.Row(visible=row is not None)
            updates[slot.prompt] = _shortened(row.prompt) if row else ""
            updates[slot.verdict] = plain(_verdict(row, language)) if row else ""
        place = language.text(PLACE, first=page.first, last=page.last, count=page.count)
        nothing = NOTHING_FOUND if (search or "").strip() else NO_CHOICES
        return {
            **updates,
            parts.steady: _paragraphs(taste_words.steady_lines(steady, language)),
            parts.empty: "" if page.rows else plain(language.text(nothing)),
            parts.newer: gr.Button(visible=page.first > 1),
            parts.older: gr.Button(visible=page.last < page.count),
            parts.place: plain(place) if page.count > ROWS else "",
            parts.offset: max(0, page.first - 1),
            parts.ids: ",".join(str(row.comparison_id) for row in page.rows),
        }

    def _open(self, user_id: int, comparison_id: int, request: gr.Request) -> Updates:
        parts = self._parts
        view = self._services.history.view(user_id, comparison_id)
        return {
            parts.panel: gr.Column(visible=True),
            parts.earlier: conversation(view.earlier, self._services.languages.of(request)),
            parts.prompt: plain(view.row.prompt),
            parts.texts["a"]: markup.response(view.text_a),
            parts.texts["b"]: markup.response(view.text_b),
            parts.verdict: view.row.verdict,
            parts.strength: gr.Radio(
                value=view.row.strength or _SLIGHTLY, visible=view.row.verdict in PREFERENCES
            ),
            parts.reason: view.row.reason,
            parts.comparison_id: comparison_id,
            parts.choice_id: view.choice_id,
            **self._say(None),
        }

    def _closed(self) -> Updates:
        return {self._parts.panel: gr.Column(visible=False)}

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}


def _paragraphs(lines: Iterable[str]) -> str:
    return "\n\n".join(plain(line) for line in lines)


def _shortened(prompt: str) -> str:
    """The beginning on one line; the style sheet cuts it to the width there is."""
    return plain(" ".join(prompt[:_LIST_PROMPT_CHARACTERS].split()))


def _verdict(row: ChoiceRow, language: Language) -> str:
    said = language.text(VERDICTS[row.verdict])
    if row.strength is not None and row.strength != _SLIGHTLY and row.strength in STRENGTHS:
        said = language.text(CLEARLY, verdict=said)
    if not row.reason:
        return said
    reason = language.text(row.reason) if row.reason in REASONS else row.reason
    return language.text(WITH_REASON, verdict=said, reason=reason)


def _number_at(ids: str, place: int) -> int:
    """The comparison of a line; what the browser made up belongs to nobody."""
    listed = (ids or "").split(",")
    text = listed[place] if place < len(listed) else ""
    return int(text) if text.isdecimal() and len(text) < 10 else 0
