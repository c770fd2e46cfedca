"""The keys of the compare page, explained on `?`; and whether they are used at all."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from backend.wording import msg
from ui.language import later

_OPEN = msg("Keys")
_TITLE = msg("Keys")
_CLOSE = msg("Close")
_USE = msg("Use these keys")
_NOTE = msg("They rest while you type, and with Ctrl, Alt or Meta held down.")
_KEYS = (
    (("1",), msg("A is better")),
    (("2",), msg("Tie")),
    (("3",), msg("Both bad")),
    (("4",), msg("B is better")),
    (("Shift",), msg("held with 1 or 4: clearly better")),
    (("S",), msg("Skip this pair")),
    (("U",), msg("Undo the last choice")),
    (("N",), msg("Not this prompt again")),
    (("Esc",), msg("Close what is open; stop the writing")),
    (("?",), msg("Show this")),
)


@dataclass(frozen=True, slots=True)
class Help:
    """The panel's parts; the page's script opens and closes it."""

    use_keys: gr.Checkbox


def help_button() -> None:
    """Opens the panel; for those whose keyboard has no `?`, or whose keys are switched off."""
    gr.Button(later(_OPEN), elem_id="help-open")


def draw_help() -> Help:
    """The panel. Beside the bar, not in it: what is fixed inside the bar is fixed to the bar."""
    with gr.Column(elem_id="help", min_width=0):
        rows = "".join(
            f"<dt>{''.join(f'<kbd>{key}</kbd>' for key in keys)}</dt><dd>{later(what)}</dd>"
            for keys, what in _KEYS
        )
        gr.HTML(f'<h2 id="help-title">{later(_TITLE)}</h2><dl>{rows}</dl><p>{later(_NOTE)}</p>')
        use_keys = gr.Checkbox(value=True, label=later(_USE), container=False, elem_id="use-keys")
        gr.Button(later(_CLOSE), elem_id="help-close")
    return Help(use_keys)
