"""The prompts that come with Attune, as they lie in its package. Knows nothing of databases."""

from __future__ import annotations

import json
from importlib.resources import files

# What a prompt may end with, so that a small model's responses end before they are cut off.
USUAL_ENDING = "Answer in two or three sentences."


def shipped() -> list[dict[str, str]]:
    """`text` and `topic` of each, in their order."""
    text = files("backend").joinpath("data/prompts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def with_ending(text: str, ending: str) -> str:
    """The prompt as it is asked: the ending, if there is one, stands behind it."""
    return f"{text} {ending}".strip()
