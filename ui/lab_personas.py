"""The lab's card of simulated users: let some choose, stop them, see how far they are.

Parts, handlers and wiring of one card; each handler asks first whether this is a researcher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from backend.auth import Accounts
from backend.persona_cast import COUNTS, first_rules
from backend.personas import Personas, Running
from ui import tables
from ui.layout import DIRECT
from ui.markup import plain
from ui.session import Attempt, researcher

Updates = dict[Any, Any]

_REFRESH_S = 2.0
_USUAL_COUNT = 6
_NOTE = (
    "A persona is a simulated user. It reads both texts, never their conditions, and chooses by "
    "one written rule over the text; with some probability, its noise, it chooses at random, and "
    "with another, its side bias, it takes A without reading. "
    "Personas come in opposed pairs, so that no taste is in the majority. People are always served "
    "first. Stopped and run again, each goes on with the user vector it has."
)


@dataclass(frozen=True, slots=True)
class PersonaParts:
    """Every component of the card."""

    count: gr.Dropdown
    run: gr.Button
    stop: gr.Button
    state: gr.Markdown
    refused: gr.Markdown
    table: gr.Markdown

    @property
    def shown(self) -> list[Any]:
        """How far they are: set again and again."""
        return [self.run, self.stop, self.state, self.table]

    @property
    def all(self) -> list[Any]:
        """What a button may set."""
        return [*self.shown, self.refused]


def draw() -> PersonaParts:
    """Lay the card out; call inside a column's `with` block."""
    with gr.Column(elem_id="lab-personas", elem_classes=["card"], min_width=0):
        gr.HTML(
            f"<h2>Personas</h2><details><summary>what is this?</summary><p>{_NOTE}</p></details>",
            elem_classes=["question"],
        )
        with gr.Row(elem_id="personas-row"):
            count = gr.Dropdown(
                [(f"{count} personas", count) for count in COUNTS],
                value=_USUAL_COUNT,
                label="How many personas",  # read out, not shown
                show_label=False,
                container=False,
                allow_custom_value=True,  # the handler checks the value, not Gradio
                elem_id="personas-count",
            )
            run = gr.Button("Run", elem_id="personas-run")
            stop = gr.Button("Stop", elem_id="personas-stop", interactive=False)
            state = gr.Markdown("", elem_id="personas-state")
        # A place of its own: what is refreshed by the clock would wipe it before it is read.
        refused = gr.Markdown("", elem_id="personas-refused")
        table = gr.Markdown("", elem_classes=["table"], elem_id="personas-table")
    return PersonaParts(count, run, stop, state, refused, table)


def wire(page: gr.Blocks, parts: PersonaParts, personas: Personas, accounts: Accounts) -> None:
    """Connect the card; call inside the page's `with` block."""
    handlers = _Handlers(parts, personas, accounts)
    for trigger, handler, inputs, outputs in (
        (page.load, handlers.refresh, None, parts.shown),
        (gr.Timer(_REFRESH_S).tick, handlers.refresh, None, parts.shown),
        (parts.run.click, handlers.run, parts.count, parts.all),
        (parts.stop.click, handlers.stop, None, parts.all),
    ):
        trigger(handler, inputs, outputs, **DIRECT)


def in_words(running: Running) -> str:
    """One line: what they are doing."""
    if not running.rows:
        return "none has run yet"
    done = "choosing now" if running.active else "at rest"
    return done if running.limit is None else f"{done}, {running.limit} choices each"


def table(running: Running) -> str:
    """Each persona: its rule in words, its noise and side bias, its choices in this run."""
    if not running.rows:
        return ""
    return tables.table(
        ("Persona (simulated)", "Rule", "Noise>", "Side bias>", "Choices>"),
        (
            (
                row.persona.username,
                row.persona.wants,
                tables.percent(row.persona.noise),
                tables.percent(row.persona.side_bias),
                str(row.choices),
            )
            for row in running.rows
        ),
    )


class _Handlers:
    def __init__(self, parts: PersonaParts, personas: Personas, accounts: Accounts) -> None:
        self._parts = parts
        self._personas = personas
        self._accounts = accounts

    def refresh(self, request: gr.Request) -> Updates:
        """How far they are."""
        with Attempt() as attempt:
            researcher(request, self._accounts)
            return self._shown()
        return {self._parts.state: plain(attempt.message or "")}

    def run(self, count: Any, request: gr.Request) -> Updates:
        """So many personas choose from now on."""
        with Attempt() as attempt:
            researcher(request, self._accounts)
            self._personas.start(first_rules(count if isinstance(count, int) else 0))
            return {**self._shown(), self._parts.refused: ""}
        return {self._parts.refused: plain(attempt.message or "")}

    def stop(self, request: gr.Request) -> Updates:
        """No more choices by personas."""
        with Attempt() as attempt:
            researcher(request, self._accounts)
            self._personas.stop()
            return {**self._shown(), self._parts.refused: ""}
        return {self._parts.refused: plain(attempt.message or "")}

    def _shown(self) -> Updates:
        running = self._personas.running()
        return {
            self._parts.run: gr.Button(interactive=not running.active),
            self._parts.stop: gr.Button(interactive=running.active),
            self._parts.state: plain(in_words(running)),
            self._parts.table: table(running),
        }
