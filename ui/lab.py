"""The researchers' page: rounds and their curves, versions, choices per user, train, roll back.

The role is checked inside every handler: hiding a component hides nothing from a client. Tables
come from one cached snapshot that all viewers share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd  # type: ignore[import-untyped]  # it comes with Gradio

from backend.auth import Accounts, CurrentUser, require_role
from backend.insights import Insights, LabSnapshot, RoundRow
from backend.training import Training
from backend.versions import Versions
from ui import layout, tables
from ui.layout import Header
from ui.markup import plain
from ui.session import Attempt, signed_in

Updates = dict[Any, Any]

_REFRESH_S = 4.0
_LOSS = {"training pairs": "loss"}
_COLOURS = dict.fromkeys(("training pairs", "personal"), "var(--accent)") | {
    "generic": "var(--soft)"
}
_ACCURACY = {"personal": "accuracy", "generic": "accuracy_generic"}
_LOSS_NOTE = (
    "The P-DPO loss with its DPOP and NLL terms, in nats, mean over the pairs of each optimizer "
    "step. It is measured on the pairs being trained on: falling says it fits, not that it "
    "generalizes."
)
_ACCURACY_NOTE = (
    "Share of the step's pairs whose chosen response has the larger implicit reward. Personal: "
    "under the user's own vector. Generic: under the shared vector, the control. High pair "
    "accuracy says nothing about the health of generated text; the gate looks at that."
)
_GATE_NOTE = (
    "A round becomes a version only if its numbers are finite, its held-out pairs are not worse "
    "and its generated texts have not collapsed. A refused round is kept and never served."
)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Every component the handlers touch."""

    header: Header
    summary: gr.Markdown
    notice: gr.Markdown
    train: gr.Button
    rounds: gr.Markdown
    chosen: gr.Dropdown
    drawn: gr.Textbox  # what the details and choosers show, so that they are redrawn only then
    loss: gr.LinePlot
    accuracy: gr.LinePlot
    verdict: gr.Markdown
    figures: gr.Markdown
    samples: gr.Markdown
    versions: gr.Markdown
    target: gr.Dropdown
    roll_back: gr.Button
    sure: gr.Row
    question: gr.Markdown
    yes: gr.Button
    no: gr.Button
    users: gr.Markdown

    @property
    def details(self) -> list[Any]:
        told = [self.verdict, self.figures, self.samples]
        return [self.drawn, self.loss, self.accuracy, *told, self.notice]

    @property
    def lists(self) -> list[Any]:
        return [
            *(self.summary, self.rounds, self.versions, self.users, self.chosen, self.target),
            *(self.header.chip, self.header.account),
            *self.details,
        ]

    @property
    def asking(self) -> list[Any]:
        return [self.sure, self.question, self.notice]


def build_lab(
    insights: Insights, training: Training, versions: Versions, accounts: Accounts
) -> gr.Blocks:
    """The page, wired to the use cases."""
    page = layout.blocks("Lab")
    with page:
        parts = _draw()
        _wire(page, parts, _Handlers(parts, insights, training, versions, accounts))
    return page


def _draw() -> _Parts:
    head = layout.header("Lab")
    with gr.Column(elem_id="lab", min_width=0):
        with gr.Row(elem_id="lab-top"):
            gr.HTML("<h1>Lab</h1>", elem_id="lab-title")
            summary = gr.Markdown("", elem_id="lab-summary")
            train = gr.Button("Train now", elem_id="train-now")
        notice = gr.Markdown("", elem_id="notice")
        with gr.Row(elem_id="lab-grid"):
            with gr.Column(min_width=0):
                rounds = _list_card("Rounds", "lab-rounds")
                with _card("Versions", "lab-versions"):
                    versions = gr.Markdown("", elem_classes=["table", "tall"])
                    with gr.Row(elem_id="roll-back-row"):
                        target = _dropdown("roll-back-to")
                        roll_back = gr.Button("Roll back …", elem_id="roll-back")
                    with gr.Row(elem_id="sure", visible=False) as sure:
                        question = gr.Markdown("", elem_id="sure-question")
                        yes = gr.Button("Yes, serve it", elem_id="roll-back-yes", variant="stop")
                        no = gr.Button("Cancel", elem_id="roll-back-no")
            with gr.Column(min_width=0):
                with _card("One round", "lab-round"):
                    chosen = _dropdown("round-chosen")
                    with gr.Row(elem_id="curves"):
                        loss = _plot("Does it fit?", "loss", _LOSS_NOTE)
                        accuracy = _plot("Is it personal?", "accuracy", _ACCURACY_NOTE)
                    _question("May it go live?", _GATE_NOTE)
                    verdict = gr.Markdown("", elem_id="verdict")
                    with gr.Accordion("Figures of the gate", open=False):
                        figures = gr.Markdown("", elem_classes=["table"])
                    with gr.Accordion("Texts the gate generated", open=False):
                        samples = gr.Markdown("", elem_id="samples")
                users = _list_card("Choices per user", "lab-users")
    return _Parts(
        header=head,
        summary=summary,
        notice=notice,
        train=train,
        rounds=rounds,
        chosen=chosen,
        drawn=gr.Textbox(visible=False),
        loss=loss,
        accuracy=accuracy,
        verdict=verdict,
        figures=figures,
        samples=samples,
        versions=versions,
        target=target,
        roll_back=roll_back,
        sure=sure,
        question=question,
        yes=yes,
        no=no,
        users=users,
    )


def _card(title: str, elem_id: str) -> gr.Column:
    column = gr.Column(elem_id=elem_id, elem_classes=["card"], min_width=0)
    with column:
        gr.HTML(f"<h2>{title}</h2>")
    return column


def _list_card(title: str, elem_id: str) -> gr.Markdown:
    with _card(title, elem_id):
        return gr.Markdown("", elem_classes=["table", "tall"])


def _dropdown(elem_id: str) -> gr.Dropdown:
    # Its choices come and go with the rounds: the handlers check the value, not Gradio.
    return gr.Dropdown(
        [], show_label=False, container=False, allow_custom_value=True, elem_id=elem_id
    )


def _question(question: str, note: str) -> None:
    """A heading with its definition one click away."""
    gr.HTML(
        f"<h3>{question}</h3><details><summary>what is this?</summary><p>{note}</p></details>",
        elem_classes=["question"],
    )


def _plot(question: str, elem_id: str, note: str) -> gr.LinePlot:
    with gr.Column(min_width=0):
        _question(question, note)
        return gr.LinePlot(
            x="step",
            y="value",
            color="line",
            x_title="step",
            y_title=elem_id,
            color_title=" ",
            color_map=_COLOURS,
            height=190,
            container=False,
            buttons=[],
            visible=False,
            elem_id=f"plot-{elem_id}",
        )


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
        parts: _Parts,
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

    def refresh(self, chosen: Any, drawn: str | None, request: gr.Request) -> Updates:
        """Tables from the shared snapshot; the details only when their round has moved on."""
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
                parts.header.chip: layout.chip_of(self._insights.chip(user.id)),
                parts.header.account: layout.account_of(user),
            }
            if drawn != _state(snapshot, row):
                updates |= self._offered(snapshot, row) | self._details(snapshot, row)
            return updates
        return self._say(attempt.message)

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
                return {**self._say("Choose a version first."), parts.sure: gr.Row(visible=False)}
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
        with Attempt() as attempt:
            user = self._researcher(request)
            if version_id is not None:
                self._versions.roll_back(version_id, user.id)
        done = f"Version {version_id} is live."
        return {self._parts.sure: gr.Row(visible=False), **self._say(attempt.message or done)}

    def _researcher(self, request: gr.Request) -> CurrentUser:
        user = signed_in(request, self._accounts)
        require_role(user, "researcher")
        return user

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
            parts.samples: tables.samples(gate.samples if gate else ()),
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
    rounds = " ".join(f"{r.id}{r.status[0]}" for r in snapshot.rounds)
    versions = " ".join(str(v.id) for v in snapshot.versions if not (v.live or v.damaged))
    return f"{row.id if row else None} of {rounds}, {versions}"


def _wire(page: gr.Blocks, parts: _Parts, handlers: _Handlers) -> None:
    def on(
        trigger: Callable[..., Any], fn: Callable[..., Any], inputs: Any, outputs: list[Any]
    ) -> None:
        trigger(fn, inputs, outputs, queue=False, show_progress="hidden", api_visibility="private")

    shown = [parts.chosen, parts.drawn]
    on(page.load, handlers.refresh, shown, parts.lists)
    on(gr.Timer(_REFRESH_S).tick, handlers.refresh, shown, parts.lists)
    on(parts.chosen.input, handlers.look, parts.chosen, parts.details)
    on(parts.train.click, handlers.train_now, None, [parts.notice])
    on(parts.roll_back.click, handlers.ask, parts.target, parts.asking)
    on(parts.yes.click, handlers.roll_back, parts.target, parts.asking)
    on(parts.no.click, lambda: gr.Row(visible=False), None, [parts.sure])
