"""The researchers' page: rounds and their curves, versions, choices per user, train, roll back.

The role is checked inside every handler: hiding a component hides nothing from a client. Tables
come from one cached snapshot that all viewers share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
import pandas as pd  # type: ignore[import-untyped]  # it comes with Gradio

from backend.auth import Accounts, CurrentUser
from backend.evidence import Evidence
from backend.insights import Insights, LabSnapshot, RoundRow
from backend.personas import Personas
from backend.training import Training
from backend.versions import Versions
from ui import lab_evidence, lab_personas, layout, tables
from ui.lab_parts import Parts, draw
from ui.language import english
from ui.markup import plain
from ui.session import Attempt, researcher

Updates = dict[Any, Any]

_REFRESH_S = 4.0
_LOSS = {"training pairs": "loss"}
_NO_VERSION = "Choose a version first."
_ACCURACY = {"personal": "accuracy", "generic": "accuracy_generic"}


def build_lab(
    insights: Insights,
    training: Training,
    versions: Versions,
    accounts: Accounts,
    personas: Personas,
    *,
    evidence: Evidence,
) -> gr.Blocks:
    """The page, wired to the use cases."""
    page = layout.blocks("Lab")
    with page:
        parts = draw()
        _wire(page, parts, _Handlers(parts, insights, training, versions, accounts))
        lab_personas.wire(page, parts.personas, personas, accounts)
        lab_evidence.wire(page, parts.evidence, evidence, accounts)
    return page


def _curves(curve: Sequence[Mapping[str, float]], keys: Mapping[str, str]) -> gr.LinePlot:
    """A plot's update: one line per name in `keys`; no plot where nothing was measured."""
    points = [
        (step, point[key], name)
        for name, key in keys.items()
        for step, point in enumerate(curve, 1)
        if key in point
    ]
    return gr.LinePlot(
        pd.DataFrame(points, columns=["step", "value", "line"]) if points else None,
        visible=bool(points),
    )


class _Handlers:
    """What each event does; each one asks first whether this is a researcher."""

    def __init__(
        self,
        parts: Parts,
        insights: Insights,
        training: Training,
        versions: Versions,
        accounts: Accounts,
    ) -> None:
        self._parts = parts
        self._insights = insights
        self._training = training
        self._versions = versions
        self._accounts = accounts
        self._english = english()

    def refresh(self, chosen: Any, drawn: str | None, request: gr.Request) -> Updates:
        """Tables from the shared snapshot; the details only when their round has moved on.

        What keeps it from that is said where only the next refresh writes.
        """
        parts = self._parts
        with Attempt() as attempt:
            user = self._researcher(request)
            snapshot = self._insights.lab()
            row = _row(snapshot, chosen) or next(iter(snapshot.rounds), None)
            updates = {
                parts.summary: tables.summary(snapshot),
                parts.rounds: tables.rounds(snapshot.rounds),
                parts.versions: tables.versions(snapshot.versions),
                parts.users: tables.users(snapshot.users),
                parts.header.chip: layout.chip_of(self._insights.chip(user.id), self._english),
                parts.header.account: layout.account_of(user, self._english),
            }
            if drawn != _state(snapshot, row):
                updates |= self._offered(snapshot, row) | self._details(snapshot, row)
            return updates
        return {parts.summary: plain(attempt.message or "")}

    def look(self, chosen: Any, request: gr.Request) -> Updates:
        """The details of the chosen round."""
        with Attempt() as attempt:
            self._researcher(request)
            snapshot = self._insights.lab()
            return self._details(snapshot, _row(snapshot, chosen))
        return self._say(attempt.message)

    def train_now(self, request: gr.Request) -> Updates:
        """A round at the next tick."""
        with Attempt() as attempt:
            self._researcher(request)
            self._training.train_now()
        return self._say(attempt.message or "A round starts in a moment.")

    def ask(self, target: Any, request: gr.Request) -> Updates:
        """Roll back? Asked once, with both versions named."""
        parts = self._parts
        with Attempt() as attempt:
            self._researcher(request)
            if _number(target) is None:
                return {**self._say(_NO_VERSION), parts.sure: gr.Row(visible=False)}
            live = self._insights.lab().live_version
            words = f"Serve version {_number(target)} instead of {live}, to everybody?"
            return {
                parts.question: plain(words),
                parts.sure: gr.Row(visible=True),
                **self._say(None),
            }
        return self._say(attempt.message)

    def roll_back(self, target: Any, request: gr.Request) -> Updates:
        """An older version goes live."""
        version_id = _number(target)
        said = f"Version {version_id} is live."
        with Attempt() as attempt:
            user = self._researcher(request)
            if version_id is None:
                said = _NO_VERSION
            else:
                self._versions.roll_back(version_id, user.id)
        return {self._parts.sure: gr.Row(visible=False), **self._say(attempt.message or said)}

    def _researcher(self, request: gr.Request) -> CurrentUser:
        return researcher(request, self._accounts)

    def _offered(self, snapshot: LabSnapshot, row: RoundRow | None) -> Updates:
        """What can be chosen; left alone between changes, so that no open list is disturbed."""
        rounds = [(f"Round {r.id} · {r.status}", r.id) for r in snapshot.rounds]
        versions = [
            (f"Version {v.id}", v.id) for v in snapshot.versions if not (v.live or v.damaged)
        ]
        return {
            self._parts.chosen: gr.Dropdown(rounds, value=row.id if row else None),
            self._parts.target: gr.Dropdown(versions),
        }

    def _details(self, snapshot: LabSnapshot, row: RoundRow | None) -> Updates:
        parts = self._parts
        curve = self._insights.curve(row.id) if row else ()
        gate = self._insights.gate(row.id) if row else None
        return {
            parts.drawn: _state(snapshot, row),
            parts.loss: _curves(curve, _LOSS),
            parts.accuracy: _curves(curve, _ACCURACY),
            parts.verdict: tables.verdict(gate, row),
            parts.figures: tables.gate_figures(gate.figures if gate else {}),
            parts.samples: tables.samples(gate.samples if gate else (), snapshot.users),
        }

    def _say(self, message: str | None) -> Updates:
        return {self._parts.notice: plain(message or "")}


def _row(snapshot: LabSnapshot, chosen: Any) -> RoundRow | None:
    wanted = _number(chosen)
    return next((row for row in snapshot.rounds if row.id == wanted), None)


def _number(value: Any) -> int | None:
    """The browser's value as an id, None when it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _state(snapshot: LabSnapshot, row: RoundRow | None) -> str:
    """Names what the details and the choosers show; another name means: draw them again."""
    rounds = " ".join(f"{r.id} {r.status}" for r in snapshot.rounds)
    versions = " ".join(str(v.id) for v in snapshot.versions if not (v.live or v.damaged))
    return f"{row.id if row else None} of {rounds}, {versions}"


def _wire(page: gr.Blocks, parts: Parts, handlers: _Handlers) -> None:
    def on(
        trigger: Callable[..., Any], fn: Callable[..., Any], inputs: Any, outputs: list[Any]
    ) -> None:
        trigger(fn, inputs, outputs, **layout.DIRECT)

    shown = [parts.chosen, parts.drawn]
    on(page.load, handlers.refresh, shown, parts.lists)
    on(gr.Timer(_REFRESH_S).tick, handlers.refresh, shown, parts.lists)
    on(parts.chosen.input, handlers.look, parts.chosen, parts.details)
    on(parts.train.click, handlers.train_now, None, [parts.notice])
    on(parts.roll_back.click, handlers.ask, parts.target, parts.asking)
    on(parts.yes.click, handlers.roll_back, parts.target, parts.asking)
    on(parts.no.click, lambda: gr.Row(visible=False), None, [parts.sure])
    # The question names a version; another choice takes it away, so that "yes" never means another.
    on(parts.target.input, lambda: gr.Row(visible=False), None, [parts.sure])
