"""What stands on the lab page: every component, laid out. Knows no handler and no use case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import lab_blocks, lab_evidence, lab_personas, layout
from ui.lab_evidence import EvidenceParts
from ui.lab_personas import PersonaParts
from ui.layout import Header

_COLOURS = dict.fromkeys(("training pairs", "personal"), "var(--accent)") | {
    "generic": "var(--soft)"
}
_LOSS_NOTE = (
    "The P-DPO loss with its DPOP and NLL terms, in nats, mean over the pairs of each optimizer "
    "step. It is measured on the pairs being trained on: falling says it fits, not that it "
    "generalizes."
)
_ACCURACY_NOTE = (
    "Share of the step's pairs whose chosen response has the larger implicit reward. Personal: "
    "under the user's own vector. Generic: under the shared vector, the control. These are pairs "
    "being trained on: whether it is personal is answered above, by choices scored before that. "
    "Accuracy says nothing about the health of generated text either; the gate looks at that."
)
_GATE_NOTE = (
    "A round becomes a version only if its numbers are finite, its held-out pairs are not worse "
    "and its generated texts have not collapsed. A refused round is kept and never served."
)


@dataclass(frozen=True, slots=True)
class Parts:
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
    personas: PersonaParts
    evidence: EvidenceParts

    @property
    def details(self) -> list[Any]:
        """What belongs to the chosen round."""
        told = [self.verdict, self.figures, self.samples]
        return [self.drawn, self.loss, self.accuracy, *told, self.notice]

    @property
    def lists(self) -> list[Any]:
        """Everything a refresh may set."""
        return [
            *(self.summary, self.rounds, self.versions, self.users, self.chosen, self.target),
            *(self.header.chip, self.header.account),
            *self.details,
        ]

    @property
    def asking(self) -> list[Any]:
        """The question before a roll back."""
        return [self.sure, self.question, self.notice]


def draw() -> Parts:
    """Lay the page out; call inside its `with` block."""
    head = layout.header("Lab")
    with gr.Column(elem_id="lab", min_width=0):
        with gr.Row(elem_id="lab-top"):
            gr.HTML("<h1>Lab</h1>", elem_id="lab-title")
            summary = gr.Markdown("", elem_id="lab-summary")
            train = gr.Button("Train now", elem_id="train-now")
        notice = gr.Markdown("", elem_id="notice")
        evidence = lab_evidence.draw()
        with gr.Row(elem_id="lab-grid"):
            with gr.Column(min_width=0):
                rounds = _list_card("Rounds", "lab-rounds")
                with _card("Versions", "lab-versions"):
                    versions = gr.Markdown("", elem_classes=["table", "tall"])
                    with gr.Row(elem_id="roll-back-row"):
                        gr.HTML("Roll back to", elem_classes=["hint"])
                        target = _dropdown("Version to roll back to", "roll-back-to")
                        roll_back = gr.Button("Roll back …", elem_id="roll-back")
                    with gr.Row(elem_id="sure", visible=False) as sure:
                        question = gr.Markdown("", elem_id="sure-question")
                        yes = gr.Button("Yes, serve it", elem_id="roll-back-yes", variant="stop")
                        no = gr.Button("Cancel", elem_id="roll-back-no")
                personas = lab_personas.draw()
            with gr.Column(min_width=0):
                with _card("One round", "lab-round"):
                    chosen = _dropdown("Round", "round-chosen")
                    with gr.Row(elem_id="curves"):
                        loss = _plot("Does it fit?", "loss", _LOSS_NOTE)
                        accuracy = _plot("Training pairs: told apart?", "accuracy", _ACCURACY_NOTE)
                    lab_blocks.question("May it go live?", _GATE_NOTE)
                    verdict = gr.Markdown("", elem_id="verdict")
                    with gr.Accordion("Figures of the gate", open=False):
                        figures = gr.Markdown("", elem_classes=["table"])
                    with gr.Accordion("Texts the gate generated", open=False):
                        samples = gr.Markdown("", elem_id="samples")
                users = _list_card("Choices per user", "lab-users")
    return Parts(
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
        personas=personas,
        evidence=evidence,
    )


def _card(title: str, elem_id: str) -> gr.Column:
    column = gr.Column(elem_id=elem_id, elem_classes=["card"], min_width=0)
    with column:
        gr.HTML(f"<h2>{title}</h2>")
    return column


def _list_card(title: str, elem_id: str) -> gr.Markdown:
    with _card(title, elem_id):
        return gr.Markdown("", elem_classes=["table", "tall"])


def _dropdown(label: str, elem_id: str) -> gr.Dropdown:
    # Its choices come and go with the rounds: the handlers check the value, not Gradio.
    return gr.Dropdown(
        [],
        label=label,  # read out, not shown
        show_label=False,
        container=False,
        allow_custom_value=True,
        elem_id=elem_id,
    )


def _plot(question: str, elem_id: str, note: str) -> gr.LinePlot:
    with gr.Column(min_width=0):
        lab_blocks.question(question, note)
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
