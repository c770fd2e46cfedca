"""What stands on the compare page: every component, laid out. Knows no handler and no use case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import layout
from ui.layout import Header

REASONS = ("shorter", "clearer", "more detail", "friendlier", "correct")
_VERDICTS = (("a", "A is better"), ("tie", "Tie"), ("both_bad", "Both bad"), ("b", "B is better"))
_SIDES = ("a", "b")
_MATHS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]


@dataclass(frozen=True, slots=True)
class Parts:
    """Every component the handlers touch."""

    header: Header
    topic: gr.Markdown
    prompt: gr.Markdown
    ask_open: gr.Button
    own: gr.Row
    own_text: gr.Textbox
    own_send: gr.Button
    own_cancel: gr.Button
    texts: dict[str, gr.Markdown]
    saved: gr.Markdown
    why: gr.Row
    reasons: dict[str, gr.Button]
    notice: gr.Markdown
    verdicts: dict[str, gr.Button]
    skip: gr.Button
    undo: gr.Button
    again: gr.Button
    count: gr.Markdown
    comparison_id: gr.Number
    choice_id: gr.Number
    strength: gr.Number
    wanted: gr.Number  # another number: a pair has to be written while the user watches

    @property
    def deciding(self) -> list[gr.Button]:
        """The buttons that wait for a complete pair."""
        return [*self.verdicts.values(), self.skip, self.undo]

    @property
    def pair(self) -> list[Any]:
        """What a view of a comparison sets."""
        shown = [self.topic, self.prompt, *self.texts.values(), self.comparison_id]
        return [*shown, *self.deciding, self.again, self.notice, self.own, self.own_text]

    @property
    def status(self) -> list[Any]:
        """What follows the live version and the user's choices."""
        return [self.header.chip, self.count]

    @property
    def after_choice(self) -> list[Any]:
        """What a choice, a reason and an undo may set."""
        thanks = [self.saved, self.why, *self.reasons.values(), self.choice_id]
        return [*self.pair, *thanks, *self.status, self.wanted]


def draw() -> Parts:
    """Lay the page out; call inside its `with` block."""
    head = layout.header("Compare")
    with gr.Column(elem_id="main", min_width=0):
        with gr.Row(elem_id="ask"):
            with gr.Column(elem_id="question", min_width=0):
                topic = gr.Markdown("", elem_id="topic")
                prompt = gr.Markdown("", elem_id="prompt", latex_delimiters=[])
            ask_open = gr.Button("Ask my own", elem_id="ask-open")
        with gr.Row(elem_id="own", visible=False) as own:
            own_text = gr.Textbox(
                label="Your own prompt",  # read out, not shown
                placeholder="Ask anything …",
                show_label=False,
                container=False,
                lines=1,
                autofocus=True,
                elem_id="own-text",
            )
            own_send = gr.Button("Ask", elem_id="own-send", variant="primary")
            own_cancel = gr.Button("Cancel", elem_id="own-cancel")
        with gr.Row(elem_id="pair"):
            texts = {side: _card(side) for side in _SIDES}
        with gr.Row(elem_id="thanks"):
            saved = gr.Markdown("", elem_id="saved")
            with gr.Row(elem_id="why", visible=False) as why:
                gr.HTML("Why was the last one better?", elem_id="why-label")
                reasons = {r: gr.Button(r, elem_classes=["reason"]) for r in REASONS}
    with gr.Column(elem_id="bar", min_width=0):
        notice = gr.Markdown("", elem_id="notice")
        with gr.Row(elem_id="verdicts"):
            verdicts = {
                value: gr.Button(label, interactive=False, elem_id=f"choose-{value}")
                for value, label in _VERDICTS
            }
        with gr.Row(elem_id="under"):
            gr.HTML("Shift = clearly better", elem_id="clearly")
            skip = gr.Button("Skip", interactive=False, elem_id="choose-skip")
            undo = gr.Button("Undo", interactive=False, elem_id="undo")
            again = gr.Button("Try again", visible=False, elem_id="again")
            count = gr.Markdown("", elem_id="count")
    return Parts(
        header=head,
        topic=topic,
        prompt=prompt,
        ask_open=ask_open,
        own=own,
        own_text=own_text,
        own_send=own_send,
        own_cancel=own_cancel,
        texts=texts,
        saved=saved,
        why=why,
        reasons=reasons,
        notice=notice,
        verdicts=verdicts,
        skip=skip,
        undo=undo,
        again=again,
        count=count,
        comparison_id=gr.Number(visible=False, precision=0),
        choice_id=gr.Number(visible=False, precision=0),
        strength=gr.Number(1, visible=False, precision=0),
        # Not visible=False: only what is in the page tells of a change.
        wanted=gr.Number(0, visible="hidden"),
    )


def _card(side: str) -> gr.Markdown:
    """One response's card. Both sides are this function's."""
    with gr.Column(elem_id=f"card-{side}", elem_classes=["card"], min_width=0):
        letter = side.upper()
        gr.HTML(
            f'<h2><span class="letter" aria-hidden="true">{letter}</span>Response {letter}'
            '<span class="writing">writing …</span></h2>',
            elem_classes=["side"],
        )
        return gr.Markdown(
            "",
            sanitize_html=True,
            latex_delimiters=_MATHS,
            elem_id=f"response-{side}",
            elem_classes=["response"],
        )
