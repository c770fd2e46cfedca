"""The prompts that come with Attune, as they lie in its package. Knows nothing of databases."""

from __future__ import annotations

import json
from importlib.resources import files


def shipped() -> list[dict[str, str]]:
    """`text` and `topic` of each, in their order."""
    text = files("backend").joinpath("data/prompts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]
