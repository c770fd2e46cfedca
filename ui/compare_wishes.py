"""What users set for themselves on the compare page: topics, keys. `gr.Request` says who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui.compare_handlers import DeskServices
from ui.compare_parts import Parts
from ui.markup import plain
from ui.session import Attempt, signed_in

Updates = dict[Any, Any]


class Wishes:
    """One method per event; each returns the components to change."""

    def __init__(self, parts: Parts, services: DeskServices) -> None:
        self._parts = parts
        self._preferences = services.preferences
        self._accounts = services.accounts
        self._languages = services.languages

    def open_topics(self, request: gr.Request) -> Updates:
        """The panel with the user's topics."""
        with Attempt(self._languages.of(request)) as attempt:
            text = self._languages.of(request).text
            wishes = self._preferences.of(signed_in(request, self._accounts).id)
            return {
                self._parts.topics.panel: gr.Column(visible=True),
                self._parts.topics.liked: gr.CheckboxGroup(
                    choices=[(text(topic), topic) for topic in wishes.topics],
                    value=list(wishes.liked),
                ),
            }
        return self._say(attempt.message)

    def like(self, topics: Sequence[str], request: gr.Request) -> Updates:
        """Kept at once, topic by topic."""
        with Attempt(self._languages.of(request)) as attempt:
            self._preferences.like(signed_in(request, self._accounts).id, topics)
        return self._say(attempt.message)

    def use_keys(self, on: bool, request: gr.Request) -> Updates:
        """Keys on or off, for this user on every machine."""
        with Attempt(self._languages.of(request)) as attempt:
            self._preferences.use_keys(signed_in(request, self._accounts).id, on)
        return self._say(attempt.message)

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}
