"""What stands on "My taste": every component, laid out. Knows no handler and no use case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from backend.wording import msg
from ui import layout, page_blocks
from ui.compare_parts import RESPONSES
from ui.compare_parts import VERDICTS as PAIR_VERDICTS
from ui.language import later
from ui.layout import Header
from ui.page_blocks import MATHS

TITLE: Final = msg("My taste")
KNOWS = later(msg("How well it knows you"))
HOW = later(msg("How this is measured"))
HOW_TEXT = later(
    msg(
        "Before it learns from a choice, it is asked which of the two responses suits you better, "
        "by your choices before that one. Where they say nothing, it counts towards which of the "
        "two the model leans for you, compared with the untouched base model. The figure is the "
        "share of choices where that was the one you took; where it leans to neither, half. "
        "“Without your taste” is towards which one the model leans not knowing that it is you: to "
        "neither, where everybody’s choices have not changed it. “Someone else’s” is the first "
        "question as if you were another user drawn at random. The range holds however often you "
        "look; while it is learning, it is about the average so far."
    )
)
BLIND = later(msg("Blind test"))
SAY = later(msg("What your choices say"))
SAY_HOW = later(msg("How this is counted"))
SAY_HOW_TEXT = later(
    msg(
        "Eighteen things are counted in both responses of every pair: length, words, whom they "
        "speak to, layout, marks. Listed is what the ones you preferred have clearly more or less "
        "of than the others, the strongest first, five at most. Single words (I, you, may) are "
        "known in English only. Plain counts of words besides help to foresee you and to pick "
        "drafts; they have no names to list. Blind pairs and pairs that came back are left out; "
        "after a few hundred choices, the oldest too."
    )
)
WORDS = later(msg("In your words"))
WORDS_LABEL = later(msg("How should responses be for you?"))
WORDS_EXAMPLE = later(msg("I like it short, with an example."))
EDIT = later(msg("Edit"))
SAVE = later(msg("Save"))
CANCEL = later(msg("Cancel"))
ERASE_WORDS = later(msg("Erase it"))
TRY = later(msg("Try it"))
TRY_LABEL = later(msg("Your prompt"))
TRY_EXAMPLE = later(msg("How do I start running?"))
TRY_NOTE = msg("Both are shown and thrown away: nothing here is a choice, and nothing is stored.")
ASK = later(msg("Ask"))
FOR_EVERYBODY = later(msg("For everybody"))
FOR_YOU = later(msg("For you"))
CHOICES = later(msg("Your choices"))
SEARCH_LABEL = later(msg("Search your choices"))
SEARCH_EXAMPLE = later(msg("Search"))
NEWER = later(msg("Newer"))
OLDER = later(msg("Older"))
CHANGE = later(msg("Change this choice"))
VERDICT_LABEL = later(msg("Your choice"))
VERDICTS = {**PAIR_VERDICTS, "skip": msg("Skip")}
STRENGTH_LABEL = later(msg("How much better"))
STRENGTHS = {1: msg("Slightly"), 2: msg("Clearly")}
REASON_LABEL = later(msg("Why (if you like)"))
CHANGE_NOTE = later(
    msg("The old choice stays in your record; from the next time it learns, the new one counts.")
)
DATA = later(msg("Your data"))
DATA_TEXT = later(
    msg(
        "Everything you gave and everything made from it: account, choices, both texts of every "
        "pair, your prompts and words, the figures above one by one, your vector if there is "
        "one."
    )
)
DOWNLOAD = later(msg("Download all"))
ERASE = later(msg("Erase me …"))
DOWNLOAD_PATH = "/taste/data.jsonl"
ERASE_PATH = "/taste/erase"

ROWS = 6
_SIDES = ("a", "b")


@dataclass(frozen=True, slots=True)
class Figures:
    """The first three cards' figures."""

    known: gr.Markdown
    known_lines: gr.Markdown
    curve: gr.HTML
    blind: gr.Markdown
    blind_lines: gr.Markdown
    leanings: gr.HTML
    leaning_lines: gr.Markdown

    @property
    def all(self) -> list[Any]:
        """What a refresh sets."""
        known = [self.known, self.known_lines, self.curve]
        return [*known, self.blind, self.blind_lines, self.leanings, self.leaning_lines]


@dataclass(frozen=True, slots=True)
class Words:
    """What users write about themselves."""

    shown: gr.Markdown
    edit: gr.Button
    editing: gr.Column
    text: gr.Textbox
    save: gr.Button
    erase: gr.Button
    cancel: gr.Button
    notice: gr.Markdown

    @property
    def all(self) -> list[Any]:
        """What its handlers set."""
        return [self.shown, self.edit, self.editing, self.text, self.erase, self.notice]


@dataclass(frozen=True, slots=True)
class Trying:
    """The try-it box."""

    text: gr.Textbox
    ask: gr.Button
    answers: gr.Row
    generic: gr.Markdown
    personal: gr.Markdown
    notice: gr.Markdown

    @property
    def all(self) -> list[Any]:
        """What its handler sets."""
        return [self.answers, self.generic, self.personal, self.notice]


@dataclass(frozen=True, slots=True)
class Slot:
    """One line of the list."""

    row: gr.Row
    prompt: gr.Markdown
    verdict: gr.Markdown
    edit: gr.Button


@dataclass(frozen=True, slots=True)
class Past:
    """The list of choices and the panel that changes one."""

    search: gr.Textbox
    steady: gr.Markdown
    slots: tuple[Slot, ...]
    empty: gr.Markdown
    newer: gr.Button
    place: gr.Markdown
    older: gr.Button
    offset: gr.Number
    ids: gr.Textbox  # the comparisons of the lines shown; ownership is checked when one is opened
    panel: gr.Column
    earlier: gr.Markdown
    prompt: gr.Markdown
    texts: dict[str, gr.Markdown]
    verdict: gr.Radio
    strength: gr.Radio
    reason: gr.Textbox
    save: gr.Button
    cancel: gr.Button
    comparison_id: gr.Number
    choice_id: gr.Number
    notice: gr.Markdown

    @property
    def list_parts(self) -> list[Any]:
        """What a page of the list sets."""
        lines = [part for s in self.slots for part in (s.row, s.prompt, s.verdict)]
        return [
            *lines,
            self.steady,
            self.empty,
            self.newer,
            self.place,
            self.older,
            self.offset,
            self.ids,
        ]

    @property
    def entered(self) -> set[Any]:
        """What saving a change reads."""
        asked = {self.verdict, self.strength, self.reason, self.comparison_id, self.choice_id}
        return asked | {self.search, self.offset}

    @property
    def panel_parts(self) -> list[Any]:
        """What opening and closing the panel sets."""
        shown = [self.panel, self.earlier, self.prompt, *self.texts.values()]
        asked = [self.verdict, self.strength, self.reason, self.comparison_id, self.choice_id]
        return [*shown, *asked, self.notice]


@dataclass(frozen=True, slots=True)
class Parts:
    """Every component the handlers touch."""

    header: Header
    notice: gr.Markdown
    figures: Figures
    words: Words
    trying: Trying
    past: Past


def draw(most_words: int, most_reason: int) -> Parts:
    """Lay the page out; call inside its `with` block."""
    head = layout.header(TITLE)
    with gr.Column(elem_id="taste", min_width=0):
        gr.HTML(f"<h1>{later(TITLE)}</h1>", elem_id="taste-title")
        notice = gr.Markdown("", elem_id="taste-notice", elem_classes=["say"])
        with gr.Row(elem_id="taste-grid"):
            with _card("taste-known"):
                _heading(KNOWS)
                with gr.Row(elem_classes=["headline"]):
                    known = gr.Markdown("", elem_id="known-figure", elem_classes=["big"])
                    known_lines = gr.Markdown("", elem_id="known-lines", elem_classes=["quiet"])
                curve = gr.HTML("", elem_id="known-curve")
                gr.HTML(f"<details><summary>{HOW}</summary><p>{HOW_TEXT}</p></details>")
            with _card("taste-blind"):
                _heading(BLIND)
                blind = gr.Markdown("", elem_id="blind-figure", elem_classes=["big"])
                blind_lines = gr.Markdown("", elem_id="blind-lines", elem_classes=["quiet"])
                words = _draw_words(most_words)
            with _card("taste-leanings"):
                _heading(SAY)
                leanings = gr.HTML("", elem_id="leanings")
                leaning_lines = gr.Markdown("", elem_id="leaning-lines", elem_classes=["quiet"])
                gr.HTML(f"<details><summary>{SAY_HOW}</summary><p>{SAY_HOW_TEXT}</p></details>")
            trying = _draw_trying()
            past = _draw_past(most_reason)
            with _card("taste-data"):
                _heading(DATA)
                gr.HTML(f'<p class="quiet">{DATA_TEXT}</p>')
                with gr.Row(elem_classes=["buttons"]):
                    gr.Button(DOWNLOAD, link=DOWNLOAD_PATH, elem_id="download")
                    gr.Button(ERASE, link=ERASE_PATH, elem_id="erase")
    figures = Figures(known, known_lines, curve, blind, blind_lines, leanings, leaning_lines)
    return Parts(head, notice, figures, words, trying, past)


def _draw_words(most: int) -> Words:
    gr.HTML(f"<h2>{WORDS}</h2>", elem_id="words-title")
    shown = gr.Markdown("", elem_id="words-shown", latex_delimiters=[])
    edit = gr.Button(EDIT, elem_id="words-edit", elem_classes=["link"])
    with gr.Column(visible=False, elem_id="words-editing", min_width=0) as editing:
        text = gr.Textbox(
            label=WORDS_LABEL,
            placeholder=WORDS_EXAMPLE,
            container=False,
            lines=4,
            max_length=most,
            elem_id="words-text",
        )
        with gr.Row(elem_classes=["buttons"]):
            save = gr.Button(SAVE, elem_id="words-save", variant="primary")
            cancel = gr.Button(CANCEL, elem_id="words-cancel")
            erase = gr.Button(ERASE_WORDS, elem_id="words-erase")
    notice = gr.Markdown("", elem_id="words-notice", elem_classes=["say"])
    return Words(shown, edit, editing, text, save, erase, cancel, notice)


def _draw_trying() -> Trying:
    with _card("taste-try"):
        _heading(TRY)
        with gr.Row(elem_id="try-ask"):
            text = page_blocks.line(TRY_LABEL, TRY_EXAMPLE, "try-text")
            ask = gr.Button(ASK, elem_id="try-send", variant="primary")
        notice = gr.Markdown(later(TRY_NOTE), elem_id="try-notice", elem_classes=["say"])
        with gr.Row(visible=False, elem_id="try-answers") as answers:
            generic = _answer(FOR_EVERYBODY, "try-generic")
            personal = _answer(FOR_YOU, "try-personal")
    return Trying(text, ask, answers, generic, personal, notice)


def _answer(label: str, elem_id: str) -> gr.Markdown:
    with gr.Column(elem_classes=["answer"], min_width=0):
        gr.HTML(f"<h3>{label}</h3>")
        return page_blocks.response(elem_id)


def _draw_past(most_reason: int) -> Past:
    with _card("taste-past"):
        with gr.Row(elem_id="past-top"):
            _heading(CHOICES)
            search = page_blocks.line(SEARCH_LABEL, SEARCH_EXAMPLE, "past-search")
        steady = gr.Markdown("", elem_id="past-steady", elem_classes=["quiet"])
        slots = tuple(_slot(number) for number in range(ROWS))
        empty = gr.Markdown("", elem_id="past-empty", elem_classes=["quiet"])
        with gr.Row(elem_id="past-pages"):
            newer = gr.Button(NEWER, visible=False, elem_id="past-newer")
            place = gr.Markdown("", elem_id="past-place", elem_classes=["quiet"])
            older = gr.Button(OLDER, visible=False, elem_id="past-older")
        with gr.Column(visible=False, elem_id="past-panel", min_width=0) as panel:
            gr.HTML(f'<h3 id="past-title" tabindex="-1">{CHANGE}</h3>')
            earlier = gr.Markdown("", latex_delimiters=MATHS, elem_id="past-earlier")
            prompt = gr.Markdown("", elem_id="past-prompt", latex_delimiters=[])
            with gr.Row(elem_id="past-pair"):
                texts = {side: _answer(later(RESPONSES[side]), f"past-{side}") for side in _SIDES}
            verdict = gr.Radio(
                [(later(label), value) for value, label in VERDICTS.items()],
                label=VERDICT_LABEL,
                elem_id="past-verdict",
            )
            strength = gr.Radio(
                [(later(label), value) for value, label in STRENGTHS.items()],
                label=STRENGTH_LABEL,
                elem_id="past-strength",
            )
            reason = gr.Textbox(
                label=REASON_LABEL, lines=1, max_length=most_reason, elem_id="past-reason"
            )
            gr.HTML(f'<p class="quiet">{CHANGE_NOTE}</p>')
            with gr.Row(elem_classes=["buttons"]):
                save = gr.Button(SAVE, elem_id="past-save", variant="primary")
                cancel = gr.Button(CANCEL, elem_id="past-cancel")
        notice = gr.Markdown("", elem_id="past-notice", elem_classes=["say"])
    return Past(
        search=search,
        steady=steady,
        slots=slots,
        empty=empty,
        newer=newer,
        place=place,
        older=older,
        offset=gr.Number(0, visible=False, precision=0),
        ids=gr.Textbox("", visible=False),
        panel=panel,
        earlier=earlier,
        prompt=prompt,
        texts=texts,
        verdict=verdict,
        strength=strength,
        reason=reason,
        save=save,
        cancel=cancel,
        comparison_id=gr.Number(visible=False, precision=0),
        choice_id=gr.Number(visible=False, precision=0),
        notice=notice,
    )


def _slot(number: int) -> Slot:
    with gr.Row(visible=False, elem_classes=["past-row"], elem_id=f"past-row-{number}") as row:
        prompt = gr.Markdown(
            "", elem_classes=["what"], latex_delimiters=[], elem_id=f"past-what-{number}"
        )
        verdict = gr.Markdown("", elem_classes=["quiet"], latex_delimiters=[])
        edit = gr.Button(EDIT, elem_classes=["link"], elem_id=f"past-edit-{number}")
    return Slot(row, prompt, verdict, edit)


def _card(elem_id: str) -> gr.Column:
    return gr.Column(elem_id=elem_id, elem_classes=["card"], min_width=0)


def _heading(text: str) -> None:
    gr.HTML(f"<h2>{text}</h2>")
