"""What the lab's cards are made of. Knows no card."""

from __future__ import annotations

import gradio as gr


def question(text: str, note: str, level: int = 3) -> None:
    """A heading with its definition one click away; both are ours, never a user's words."""
    gr.HTML(
        f"<h{level}>{text}</h{level}>"
        f"<details><summary>what is this?</summary><p>{note}</p></details>",
        elem_classes=["question"],
    )
