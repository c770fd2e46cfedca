"""The keys of the compare page, explained on `?`; and whether they are used at all."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

_OPEN = "Keys"
_TITLE = "Keys"
_CLOSE = "Close"
_USE = "Use these keys"
_NOTE = "They rest while you type, and with Ctrl, Alt or Meta held down."
_KEYS = (
    (("1",), "A is better"),
    (("2",), "Tie"),
    (("3",), "Both bad"),
    (("4",), "B is better"),
    (("Shift",), "held with 1 or 4: clearly better"),
    (("S",), "Skip this pair"),
    (("U",), "Undo the last choice"),
    (("N",), "Not this prompt again"),
    (("Esc",), "Close what is open; stop the writing"),
    (("?",), "Show this"),
)


@dataclass(frozen=True, slots=True)
class Help:
    """The panel's parts; the page's script opens and closes it."""

    use_keys: gr.Checkbox


def help_button() -> None:
    """Opens the panel; for those whose keyboard has no `?`, or whose keys are switched off."""
    gr.Button(_OPEN, elem_id="help-open")


def draw_help() -> Help:
    """The panel. Beside the bar, not in it: what is fixed inside the bar is fixed to the bar."""
    with gr.Column(elem_id="help", min_width=0):
        rows = "".join(
            f"<dt>{''.join(f'<kbd>{key}</kbd>' for key in keys)}</dt><dd>{what}</dd>"
            for keys, what in _KEYS
        )
        gr.HTML(f'<h2 id="help-title">{_TITLE}</h2><dl>{rows}</dl><p>{_NOTE}</p>')
        use_keys = gr.Checkbox(value=True, label=_USE, container=False, elem_id="use-keys")
        gr.Button(_CLOSE, elem_id="help-close")
    return Help(use_keys)
