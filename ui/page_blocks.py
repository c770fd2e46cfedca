"""What the compare page and My taste are both built of: a line to write in, a response.

Knows no page, no handler and no use case.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

MATHS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]


def line(label: str, hint: str, elem_id: str, **more: Any) -> gr.Textbox:
    """A box of one line; its label is read out, not shown, and the hint stands in it."""
    return gr.Textbox(
        label=label,
        placeholder=hint,
        show_label=False,
        container=False,
        lines=1,
        elem_id=elem_id,
        **more,
    )


def response(elem_id: str) -> gr.Markdown:
    """A model's text as Markdown with formulas; `ui/markup.py` has made it harmless before."""
    return gr.Markdown(
        "",
        sanitize_html=True,
        latex_delimiters=MATHS,
        elem_id=elem_id,
        elem_classes=["response"],
    )
