"""My taste: the list of one's choices, searched and turned over, and each changed in a panel.

Every handler asks who is calling; ids that come from the browser are checked by the use case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from backend.auth import Accounts
from backend.choosing import PREFERENCES
from backend.errors import Conflict
from backend.history import ChoiceRow, History
from backend.insights import Insights
from backend.wording import msg
from ui import markup, taste_words
from ui.compare_parts import REASONS
from ui.compare_texts import conversation
from ui.language import Language, Languages
from ui.layout import DIRECT
from ui.markup import paragraphs, plain
from ui.session import Attempt, signed_in
from ui.taste_parts import ROWS, STRENGTHS, VERDICTS, Past

Updates = dict[Any, Any]

NOTHING_FOUND = msg("No choice of yours contains this.")
NO_CHOICES = msg("You have not made any choice yet.")
PLACE = msg("{first}–{last} of {count}")
CHANGED = msg("Saved. From the next time it learns, this is what counts.")
CLEARLY = msg("{verdict}, clearly")
WITH_REASON = msg("{verdict} · {reason}")

_LIST_PROMPT_CHARACTERS = 200
_SLIGHTLY = 1
_SHOW_PANEL = "() => window.attune.pastOpened({number})"


class PastChoices:
    """The handlers of the list and of the panel in which a choice is changed."""

    def __init__(
        self,
        parts: Past,
        *,
        accounts: Accounts,
        history: History,
        insights: Insights,
        languages: Languages,
    ) -> None:
        self._parts = parts
        self._accounts = accounts
        self._history = history
        self._insights = insights
        self._languages = languages

    def wire(self, page: gr.Blocks) -> None:
        """Connect the list and the panel."""
        parts = self._parts
        where, every = [parts.search, parts.offset], [*parts.list_parts, *parts.panel_parts]
        page.load(self.turner(0), where, every, **DIRECT)
        parts.newer.click(self.turner(-1), where, every, **DIRECT)
        parts.older.click(self.turner(1), where, every, **DIRECT)
        parts.search.change(self.search, parts.search, every, **DIRECT)
        for number, slot in enumerate(parts.slots):
            opened = slot.edit.click(self.opener(number), parts.ids, every, **DIRECT)
            opened.then(None, None, None, js=_SHOW_PANEL.format(number=number))
        parts.verdict.input(self.follow_verdict, parts.verdict, parts.strength, **DIRECT)
        parts.save.click(self.save, parts.entered, every, **DIRECT)
        parts.cancel.click(self.close, None, every, **DIRECT)

    def turner(self, pages: int) -> Callable[..., Updates]:
        """The handler that goes so many pages on; 0 shows the same one again."""

        def turn(search: str, offset: float | None, request: gr.Request) -> Updates:
            with Attempt(self._languages.of(request)) as attempt:
                user = signed_in(request, self._accounts)
                wanted = max(0, int(offset or 0) + pages * ROWS)
                return self._page(user.id, search, wanted, request)
            return self._say(attempt.message)

        return turn

    def search(self, search: str, request: gr.Request) -> Updates:
        """The first page of what contains it."""
        with Attempt(self._languages.of(request)) as attempt:
            user = signed_in(request, self._accounts)
            return self._page(user.id, search, 0, request)
        return self._say(attempt.message)

    def opener(self, number: int) -> Callable[..., Updates]:
        """The handler of one line's button."""

        def open_line(ids: str, request: gr.Request) -> Updates:
            with Attempt(self._languages.of(request)) as attempt:
                user = signed_in(request, self._accounts)
                return self._open(user.id, _number_at(ids, number), request)
            return self._say(attempt.message)

        return open_line

    def save(self, entered: dict[Any, Any], request: gr.Request) -> Updates:
        """A new choice in place of the old one, or how that stands now if it was changed elsewhere.

        On a mistake the panel keeps what was entered.
        """
        parts, language = self._parts, self._languages.of(request)
        with Attempt(language) as attempt:
            user = signed_in(request, self._accounts)
            comparison_id = int(entered[parts.comparison_id] or 0)
            try:
                self._history.change(
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
        parts, language = self._parts, self._languages.of(request)
        page = self._history.page(user_id, search or "", offset=offset, limit=ROWS)
        steady = self._insights.consistency(user_id)
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
            parts.steady: paragraphs(taste_words.steady_lines(steady, language)),
            parts.empty: "" if page.rows else plain(language.text(nothing)),
            parts.newer: gr.Button(visible=page.first > 1),
            parts.older: gr.Button(visible=page.last < page.count),
            parts.place: plain(place) if page.count > ROWS else "",
            parts.offset: max(0, page.first - 1),
            parts.ids: ",".join(str(row.comparison_id) for row in page.rows),
        }

    def _open(self, user_id: int, comparison_id: int, request: gr.Request) -> Updates:
        parts = self._parts
        view = self._history.view(user_id, comparison_id)
        return {
            parts.panel: gr.Column(visible=True),
            parts.earlier: conversation(view.earlier, self._languages.of(request)),
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
