"""The lab's first card: is it personal? Figures with intervals, a curve, users and versions.

Parts, handlers and wiring of one card; each handler asks first whether this is a researcher.
Says no more than the figures carry: few pairs are no evidence, and a figure whose interval holds
one half cannot be told from chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd  # type: ignore[import-untyped]  # it comes with Gradio

from backend.auth import Accounts
from backend.evidence import (
    Blind,
    CurvePoint,
    Evidence,
    Figure,
    Figures,
    Snapshot,
    UserEvidence,
    VersionEvidence,
    Whose,
)
from ui import tables
from ui.lab_blocks import question
from ui.layout import DIRECT
from ui.markup import plain
from ui.session import Attempt, researcher

Updates = dict[Any, Any]

_REFRESH_S = 4.0
_FEW = 10  # pairs, below which a figure is no evidence
_FEW_IN_STEP = 5
_EVEN = 0.5

_BLIND = (
    "A fixed share of comparisons sets a personal response beside a generic one, sides at random, "
    "and nobody is told. The figure is the share that personal wins; a tie and “both bad” are half "
    "a win each and are listed as what they are. These pairs are never trained on. Left out are "
    "comparisons made when the user had no vector, no profile and no drafts to choose from yet. "
    "In brackets the 95% interval; it holds at every moment, however often one looks."
)
_PERSONAL = (
    "Before a round may learn from a choice, the taste model made from the user’s earlier choices "
    "says which of the two texts suits this user better: log-odds, in nats. Where there is none "
    "yet, or it sees no difference, the margin counts: how much further the chosen response has "
    "moved away from the base model than the rejected one, under the live version and the user’s "
    "own vector, in nats. The figure is the share of choices with such a forecast above 0; exactly "
    "0 counts half. Every choice between two responses counts, the first ones too."
)
_GENERIC = (
    "The same choices by the margin under everybody’s: the shared vector, which does not know who "
    "asks. It learns from everybody’s choices with the individual and cluster user models; with "
    "the styled one it stays the base model, whose margins are 0, and the figure is 50%. Personal "
    "is worth something only as far as it is above this."
)
_WRONG = (
    "The same choices by the earlier choices and the vector of another user, drawn at random among "
    "all who have a vector. It should foresee less than the user’s own; where it does not, what is "
    "learnt is not personal."
)
_MATCHED = (
    "Personal again, over pairs only whose two responses differ by at most 10% in tokens. Margins "
    "and taste models follow length; here that can hardly help."
)
_CURVE = (
    "Share of choices foreseen against how many pairs the user had judged before, in steps of five "
    "or more. Each choice was scored before it was trained on. Steps with fewer than five choices "
    "are not drawn."
)
_TABLES = (
    "Foreseen: share of choices with a forecast above 0, with the 95% interval. By version: "
    "choices are those it scored, blind comparisons those it made. People and simulated users are "
    "never added up."
)
_QUESTIONS: tuple[tuple[str, str, Callable[[Figures], Figure | Blind]], ...] = (
    ("Blind win-rate", _BLIND, lambda figures: figures.blind),
    ("Foreseen: personal", _PERSONAL, lambda figures: figures.personal),
    ("Foreseen: generic", _GENERIC, lambda figures: figures.generic),
    ("Foreseen: wrong user", _WRONG, lambda figures: figures.wrong),
    ("Personal, one length", _MATCHED, lambda figures: figures.matched),
)
_LINES: dict[str, Callable[[CurvePoint], Figure]] = {
    "personal": lambda point: point.personal,
    "generic": lambda point: point.generic,
    "wrong user": lambda point: point.wrong,
}
_COLOURS = {"personal": "var(--accent)", "generic": "var(--soft)", "wrong user": "var(--warn)"}
_PEOPLE, _SIMULATED = "people", "simulated"


@dataclass(frozen=True, slots=True)
class EvidenceParts:
    """Every component of the card."""

    summary: gr.Markdown
    figures: tuple[gr.Markdown, ...]  # one for each of `_QUESTIONS`
    whose: gr.Dropdown
    drawn: gr.Textbox  # what curve and chooser show, so that they are redrawn only then
    curve: gr.LinePlot
    no_curve: gr.Markdown
    users: gr.Markdown
    versions: gr.Markdown

    @property
    def all(self) -> list[Any]:
        """What a handler may set."""
        told = [self.summary, *self.figures, self.users, self.versions]
        return [*told, self.whose, self.drawn, self.curve, self.no_curve]


def draw() -> EvidenceParts:
    """Lay the card out; call inside a column's `with` block."""
    with gr.Column(elem_id="lab-evidence", elem_classes=["card"], min_width=0):
        with gr.Row(elem_id="evidence-top"):
            gr.HTML("<h2>Is it personal?</h2>")
            summary = gr.Markdown("", elem_id="evidence-summary")
        with gr.Row(elem_id="evidence-body"):
            with gr.Column(elem_id="evidence-figures", min_width=0):
                figures = tuple(_figure(text, note) for text, note, _ in _QUESTIONS)
            with gr.Column(min_width=0):
                with gr.Row(elem_id="evidence-curve"):
                    question("Better with every choice?", _CURVE)
                    whose = gr.Dropdown(
                        [],
                        label="Whose curve",  # read out, not shown
                        show_label=False,
                        container=False,
                        allow_custom_value=True,  # the handlers check the value, not Gradio
                        elem_id="evidence-whose",
                    )
                curve = _plot()
                no_curve = gr.Markdown("", elem_id="evidence-no-curve")
        question("User by user, version by version", _TABLES)
        users = gr.Markdown("", elem_classes=["table", "tall"], elem_id="evidence-users")
        with gr.Accordion("Version by version", open=False):
            versions = gr.Markdown("", elem_classes=["table", "tall"], elem_id="evidence-versions")
    drawn = gr.Textbox(visible=False)
    return EvidenceParts(summary, figures, whose, drawn, curve, no_curve, users, versions)


def wire(page: gr.Blocks, parts: EvidenceParts, evidence: Evidence, accounts: Accounts) -> None:
    """Connect the card; call inside the page's `with` block."""
    handlers = _Handlers(parts, evidence, accounts)
    for trigger in (page.load, gr.Timer(_REFRESH_S).tick, parts.whose.input):
        trigger(handlers.refresh, [parts.whose, parts.drawn], parts.all, **DIRECT)


def in_words(snapshot: Snapshot) -> str:
    """One sentence for people, one for simulated users where there are any."""
    said = [_verdict("People", snapshot.people)]
    if snapshot.simulated != Figures():
        said.append(_verdict("Simulated users", snapshot.simulated))
    return plain(" ".join(said))


def figure_lines(people: Figure | Blind, simulated: Figure | Blind) -> str:
    """A figure of people, and of simulated users where it has been measured."""
    shown = [_line(people, "people")]
    if _rate(simulated).count:
        shown.append(_line(simulated, "simulated"))
    return "\n\n".join(shown)


def users_table(rows: Iterable[UserEvidence]) -> str:
    """Figures per user; simulated users are labelled."""
    return tables.table(
        ("User", "", *_HEADINGS),
        ((row.username, _kind(row), *_cells(row.figures)) for row in rows),
    )


def versions_table(rows: Iterable[VersionEvidence]) -> str:
    """Figures per version; blind comparisons without a vector stand apart."""
    return tables.table(
        ("Version>", "Of", *_HEADINGS, "The same, not personal yet>"),
        (
            (
                str(row.version_id),
                "simulated users" if row.simulated else "people",
                *_cells(row.figures),
                _counts(row.figures.without_vector),
            )
            for row in rows
        ),
    )


def curve_points(points: Iterable[CurvePoint]) -> list[tuple[float, float, str]]:
    """(pairs judged before, share, line) for every step with enough choices."""
    return [
        ((point.first + point.last) / 2, figure.share, name)
        for name, of in _LINES.items()
        for point in points
        if (figure := of(point)).share is not None and figure.count >= _FEW_IN_STEP
    ]


_HEADINGS = (
    "Choices scored>",
    "Personal>",
    "Generic>",
    "Wrong user>",
    "One length>",
    "Blind win-rate>",
    "Won, lost, tied, both bad>",
)


class _Handlers:
    def __init__(self, parts: EvidenceParts, evidence: Evidence, accounts: Accounts) -> None:
        self._parts = parts
        self._evidence = evidence
        self._accounts = accounts

    def refresh(self, whose: Any, drawn: str | None, request: gr.Request) -> Updates:
        """Figures and tables; the curve only when it has changed or another one was chosen."""
        parts = self._parts
        with Attempt() as attempt:
            researcher(request, self._accounts)
            snapshot = self._evidence.snapshot()
            offered = _offered(snapshot)
            chosen = whose if whose in dict(offered).values() else _usual(snapshot)
            points = curve_points(self._evidence.curve(_whose(chosen)))
            updates = self._told(snapshot)
            state = f"{chosen} of {[value for _, value in offered]}: {points}"
            if drawn != state:
                updates[parts.drawn] = state
                updates[parts.whose] = gr.Dropdown(offered, value=chosen)
                updates |= self._curve(points)
            return updates
        return {parts.summary: plain(attempt.message or "")}

    def _told(self, snapshot: Snapshot) -> Updates:
        parts = self._parts
        shown = (
            figure_lines(of(snapshot.people), of(snapshot.simulated)) for _, _, of in _QUESTIONS
        )
        return {
            parts.summary: in_words(snapshot),
            **dict(zip(parts.figures, shown, strict=True)),
            parts.users: users_table(snapshot.users) if snapshot.users else "",
            parts.versions: versions_table(snapshot.versions) if snapshot.versions else "",
        }

    def _curve(self, points: Sequence[tuple[float, float, str]]) -> Updates:
        # A line takes two points.
        enough = len({pairs for pairs, _, _ in points}) > 1
        frame = pd.DataFrame(points, columns=["pairs", "share", "line"]) if enough else None
        waiting = "" if enough else f"No curve yet: it takes two steps of {_FEW_IN_STEP} choices."
        return {
            self._parts.curve: gr.LinePlot(frame, visible=enough),
            self._parts.no_curve: plain(waiting),
        }


def _figure(text: str, note: str) -> gr.Markdown:
    with gr.Row(elem_classes=["figure"]):
        question(text, note)
        return gr.Markdown("", elem_classes=["value"])


def _plot() -> gr.LinePlot:
    return gr.LinePlot(
        x="pairs",
        y="share",
        color="line",
        x_title="pairs judged before",
        y_title="share foreseen",
        color_title=" ",
        color_map=_COLOURS,
        y_lim=[0, 1],
        height=230,
        container=False,
        buttons=[],
        visible=False,
        elem_id="plot-evidence",
    )


def _offered(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Whose curves there are: label, value."""
    users = [
        (f"{row.username} · {_kind(row)}", f"user {row.user_id}")
        for row in snapshot.users
        if row.figures.personal.count
    ]
    return [("All people", _PEOPLE), ("All simulated users", _SIMULATED), *users]


def _usual(snapshot: Snapshot) -> str:
    return _PEOPLE if snapshot.people.personal.count else _SIMULATED


def _whose(chosen: str) -> Whose:
    kind, _, number = chosen.partition(" ")
    return Whose(simulated=kind == _SIMULATED, user_id=int(number) if number else None)


def _verdict(who: str, figures: Figures) -> str:
    rate = figures.blind.rate
    pairs = tables.counted(rate.count, "blind pair")
    if rate.count < _FEW:
        return f"{who}: no evidence yet, {pairs}."
    ends = rate.interval
    if ends.low > _EVEN:
        found = "personal responses are preferred to generic ones"
    elif ends.high < _EVEN:
        found = "generic responses are preferred to personal ones"
    else:
        found = "personal cannot be told from generic yet"
    return f"{who}: {found}, {pairs}."


def _rate(measured: Figure | Blind) -> Figure:
    return measured.rate if isinstance(measured, Blind) else measured


def _line(measured: Figure | Blind, whose: str) -> str:
    figure = _rate(measured)
    behind = f"{whose}, {tables.counted(figure.count, 'pair')}"
    if isinstance(measured, Blind) and figure.count:
        ties = tables.counted(measured.tie, "tie")
        behind += f": {measured.won} won, {measured.lost} lost, {ties}, "
        behind += f"{measured.both_bad} both bad"
    if figure.count < _FEW:
        return plain(f"no evidence yet · {behind}")
    share = plain(tables.percent(figure.share))
    return f"**{share}** {plain(f'({_ends(figure)}) · {behind}')}"


def _ends(figure: Figure) -> str:
    ends = figure.interval
    return f"{100 * ends.low:.0f}–{100 * ends.high:.0f}%"


def _short(figure: Figure) -> str:
    if not figure.count:
        return tables.NONE
    if figure.count < _FEW:
        return f"{tables.percent(figure.share)} of {figure.count}"
    return f"{tables.percent(figure.share)} ({_ends(figure)})"


def _cells(figures: Figures) -> tuple[str, ...]:
    kinds = (figures.personal, figures.generic, figures.wrong, figures.matched)
    return (
        str(figures.personal.count),
        *(_short(figure) for figure in kinds),
        _short(figures.blind.rate),
        _counts(figures.blind),
    )


def _counts(blind: Blind) -> str:
    if not blind.rate.count:
        return tables.NONE
    return f"{blind.won}, {blind.lost}, {blind.tie}, {blind.both_bad}"


def _kind(row: UserEvidence) -> str:
    if row.simulated:
        return "simulated"
    return "guest" if row.guest else "person"
