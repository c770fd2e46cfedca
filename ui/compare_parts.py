"""What stands on the compare page: every component, laid out. Knows no handler and no use case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from backend.choosing import MOST_REASON_CHARACTERS
from backend.wording import msg
from ui import layout, page_blocks
from ui.compare_help import Help, draw_help, help_button
from ui.language import later
from ui.layout import Header
from ui.page_blocks import MATHS

REASONS = (
    msg("shorter"),
    msg("clearer"),
    msg("more detail"),
    msg("friendlier"),
    msg("correct"),
)
VERDICTS = {
    "a": msg("A is better"),
    "tie": msg("Tie"),
    "both_bad": msg("Both bad"),
    "b": msg("B is better"),
}
OWN_HINT = msg("Ask anything …")
RESPONSES = {"a": msg("Response A"), "b": msg("Response B")}
_OTHER_REASON = later(msg("other …"))
_OTHER_REASON_LABEL = later(msg("Another reason, in your own words"))
_OTHER_REASON_HINT = later(msg("in your own words"))
_WHY = later(msg("Why was the last one better?"))
_CLEAR = later(msg("clearly better"))
_REPLY = later(msg("Reply to it"))
_SKIP = later(msg("Skip"))
_UNDO = later(msg("Undo"))
_STOP = later(msg("Stop writing"))
_AGAIN = later(msg("Try again"))
_RETRY = later(msg("This response is empty. Write it again"))
_CLEARLY = later(msg("Shift = clearly better"))
_ASK_OPEN = later(msg("Ask my own"))
_TOPICS_OPEN = later(msg("Topics"))
_NEVER = later(msg("Not this prompt again"))
_OWN_LABEL = later(msg("Your own prompt"))
_OWN_SEND = later(msg("Send"))
_OWN_CANCEL = later(msg("Cancel"))
_TOPICS_LABEL = later(msg("Topics you would like more of"))
_TOPICS_DONE = later(msg("Done"))
_WRITING = later(msg("writing …"))
_SIDES = ("a", "b")
_SIDE_HEAD = (
    '<h2><span class="letter" aria-hidden="true">{letter}</span>{name}'
    f'<span class="writing">{_WRITING}</span></h2>'
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """What only travels: which pair, which choice, and wishes of the page's script.

    Attributes:
        making_key: names the pair while it has no id.
        replying: the choice whose response the next own message answers.
        wanted: another number means that a pair has to be written while the user watches.
        kept, send_kept: a choice that could not be sent when it was made.
        resume: the network is back; a pair that was being written is watched again.
    """

    comparison_id: gr.Number
    making_key: gr.Number
    choice_id: gr.Number
    strength: gr.Number
    replying: gr.Number
    wanted: gr.Number
    kept: tuple[gr.Number, gr.Textbox, gr.Number]
    send_kept: gr.Button
    resume: gr.Button


@dataclass(frozen=True, slots=True)
class Own:
    """The box for an own prompt or a reply."""

    row: gr.Row
    text: gr.Textbox
    send: gr.Button
    cancel: gr.Button

    @property
    def all(self) -> list[Any]:
        return [self.row, self.text]


@dataclass(frozen=True, slots=True)
class Topics:
    """The panel of topics."""

    panel: gr.Column
    liked: gr.CheckboxGroup
    done: gr.Button


@dataclass(frozen=True, slots=True)
class Thanks:
    """The line about the choice just made."""

    saved: gr.Markdown
    why: gr.Row
    reasons: dict[str, gr.Button]
    other: gr.Button
    other_text: gr.Textbox
    clearly: gr.Button
    reply: gr.Button

    @property
    def all(self) -> list[Any]:
        """What a choice sets."""
        parts = [self.saved, self.why, self.other, self.other_text, self.clearly]
        return [*parts, *self.reasons.values()]


@dataclass(frozen=True, slots=True)
class Parts:
    """Every component the handlers touch."""

    header: Header
    earlier: gr.Markdown
    topic: gr.Markdown
    prompt: gr.Markdown
    ask_open: gr.Button
    topics_open: gr.Button
    never: gr.Button
    own: Own
    topics: Topics
    texts: dict[str, gr.Markdown]
    retries: dict[str, gr.Button]
    thanks: Thanks
    notice: gr.Markdown
    verdicts: dict[str, gr.Button]
    progress: gr.Markdown
    stop: gr.Button
    skip: gr.Button
    undo: gr.Button
    again: gr.Button
    count: gr.HTML
    help: Help
    hidden: Hidden

    @property
    def pair(self) -> list[Any]:
        """What a view of a comparison sets."""
        hidden = self.hidden
        shown = [self.earlier, self.topic, self.prompt, *self.texts.values(), self.progress]
        buttons = [*self.verdicts.values(), self.skip, self.undo, self.never, self.stop]
        ids = [hidden.comparison_id, hidden.making_key, hidden.replying]
        again = [*self.retries.values(), self.again]
        return [*shown, *buttons, *ids, *again, self.notice, *self.own.all]

    @property
    def status(self) -> list[Any]:
        """What follows the live version and the user's choices."""
        return [self.header.chip, self.count]

    @property
    def after_choice(self) -> list[Any]:
        """What a choice, a reason and an undo may set."""
        hidden = self.hidden
        return [*self.pair, *self.thanks.all, hidden.choice_id, *self.status, hidden.wanted]


def draw() -> Parts:
    """Lay the page out; call inside its `with` block."""
    head = layout.header("Compare")
    with gr.Column(elem_id="main", min_width=0):
        earlier = gr.Markdown("", sanitize_html=True, latex_delimiters=MATHS, elem_id="earlier")
        with gr.Row(elem_id="ask"):
            with gr.Column(elem_id="question", min_width=0):
                topic = gr.Markdown("", elem_id="topic")
                prompt = gr.Markdown("", elem_id="prompt", latex_delimiters=[])
            with gr.Row(elem_id="ask-links"):
                ask_open = gr.Button(_ASK_OPEN, elem_id="ask-open")
                topics_open = gr.Button(_TOPICS_OPEN, elem_id="topics-open")
                never = gr.Button(_NEVER, interactive=False, elem_id="never")
        own = _own()
        topics = _topics()
        with gr.Row(elem_id="pair"):
            cards = {side: _card(side) for side in _SIDES}
        thanks = _thanks()
    with gr.Column(elem_id="bar", min_width=0):
        notice = gr.Markdown("", elem_id="notice")
        with gr.Row(elem_id="verdicts"):
            verdicts = {
                value: gr.Button(later(label), interactive=False, elem_id=f"choose-{value}")
                for value, label in VERDICTS.items()
            }
        with gr.Row(elem_id="under"):
            progress = gr.Markdown("", elem_id="progress")
            stop = gr.Button(_STOP, visible=False, elem_id="stop")
            gr.HTML(_CLEARLY, elem_id="clearly")
            skip = gr.Button(_SKIP, interactive=False, elem_id="choose-skip")
            undo = gr.Button(_UNDO, interactive=False, elem_id="undo")
            again = gr.Button(_AGAIN, visible=False, elem_id="again")
            help_button()
            count = gr.HTML("", elem_id="count")
    return Parts(
        header=head,
        earlier=earlier,
        topic=topic,
        prompt=prompt,
        ask_open=ask_open,
        topics_open=topics_open,
        never=never,
        own=own,
        topics=topics,
        texts={side: text for side, (text, _retry) in cards.items()},
        retries={side: retry for side, (_text, retry) in cards.items()},
        thanks=thanks,
        notice=notice,
        verdicts=verdicts,
        progress=progress,
        stop=stop,
        skip=skip,
        undo=undo,
        again=again,
        count=count,
        help=draw_help(),
        hidden=_hidden(),
    )


def _own() -> Own:
    with gr.Row(elem_id="own", visible=False) as row:
        text = page_blocks.line(_OWN_LABEL, later(OWN_HINT), "own-text", autofocus=True)
        send = gr.Button(_OWN_SEND, elem_id="own-send", variant="primary")
        cancel = gr.Button(_OWN_CANCEL, elem_id="own-cancel")
    return Own(row, text, send, cancel)


def _topics() -> Topics:
    with gr.Column(elem_id="topics", visible=False, min_width=0) as panel:
        gr.HTML(f"<h2>{_TOPICS_LABEL}</h2>")
        liked = gr.CheckboxGroup([], label=_TOPICS_LABEL, container=False, elem_id="liked")
        done = gr.Button(_TOPICS_DONE, elem_id="topics-done")
    return Topics(panel, liked, done)


def _thanks() -> Thanks:
    with gr.Row(elem_id="thanks"):
        saved = gr.Markdown("", elem_id="saved")
        with gr.Row(elem_id="why", visible=False) as why:
            clearly = gr.Button(_CLEAR, elem_classes=["reason"], elem_id="was-clear")
            gr.HTML(_WHY, elem_id="why-label")
            reasons = {r: gr.Button(later(r), elem_classes=["reason"]) for r in REASONS}
            other = gr.Button(_OTHER_REASON, elem_classes=["reason"], elem_id="reason-other")
            other_text = page_blocks.line(
                _OTHER_REASON_LABEL,
                _OTHER_REASON_HINT,
                "reason-text",
                max_length=MOST_REASON_CHARACTERS,
                visible=False,
            )
            reply = gr.Button(_REPLY, elem_id="reply")
    return Thanks(saved, why, reasons, other, other_text, clearly, reply)


def _hidden() -> Hidden:
    with gr.Row(elem_id="hidden"):
        return _travelling()


def _travelling() -> Hidden:
    return Hidden(
        comparison_id=gr.Number(visible=False, precision=0),
        making_key=gr.Number(visible=False, precision=0),
        choice_id=gr.Number(visible=False, precision=0),
        strength=gr.Number(1, visible=False, precision=0),
        replying=gr.Number(visible=False, precision=0),
        # Not visible=False: only what is in the page tells of a change, or can be clicked.
        wanted=gr.Number(0, visible="hidden"),
        kept=(
            gr.Number(visible=False, precision=0),
            gr.Textbox(visible=False),
            gr.Number(visible=False, precision=0),
        ),
        send_kept=gr.Button("", visible="hidden", elem_id="send-kept"),
        resume=gr.Button("", visible="hidden", elem_id="resume"),
    )


def _card(side: str) -> tuple[gr.Markdown, gr.Button]:
    """One response's card and its second try. Both sides are this function's."""
    with gr.Column(elem_id=f"card-{side}", elem_classes=["card"], min_width=0):
        gr.HTML(
            _SIDE_HEAD.format(letter=side.upper(), name=later(RESPONSES[side])),
            elem_classes=["side"],
        )
        text = page_blocks.response(f"response-{side}")
        retry = gr.Button(_RETRY, visible=False, elem_id=f"retry-{side}", elem_classes=["retry"])
    return text, retry
