"""What the rules and the base model make of texts written by different methods.

Knows nothing of rounds, choices and how the methods were trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from backend.drafts import repetition
from backend.persona_rules import RULES
from benchmarks.learning_world import Asked, World, Written
from trainer.probes import ProbeText, text_figures
from trainer.types import Message

Prompts = Sequence[tuple[Message, ...]]
_LOOPING = 0.5  # share of repeated 4-grams within one text


def answers(
    world: World, prompts: Prompts, writers: Mapping[str, Tensor | None], *, seed: int
) -> dict[str, list[Written]]:
    """Every writer's answer to every prompt, under the model as it stands.

    Args:
        writers: name → the vector (P, H) it writes under; None is no vector.
    """
    asked = [Asked(prompt, vector) for vector in writers.values() for prompt in prompts]
    written = world.write(asked, seed=seed)
    count = len(prompts)
    return {name: written[i * count : (i + 1) * count] for i, name in enumerate(writers)}


def judged(
    world: World, prompts: Prompts, texts: Mapping[str, Sequence[Written]], rules: Sequence[str]
) -> dict[str, Any]:
    """Win-rates, health and the texts themselves; no adapter may be attached.

    Args:
        texts: by writer: `base`, `generic`, `pooled`, `user 1` … and, where each user has an
            adapter, `own 1` …, with styles `styles 1` …, and the first of several drafts as
            `one draft user 1` … and `one draft pooled`
        rules: the persona of user 1, 2, …
    """
    asked = [Asked(prompt, None) for prompt in prompts]
    read = {name: world.read(asked, written) for name, written in texts.items()}
    return {
        "winrates": {
            rule: _winrates(read, user, len(rules), rule)
            for user, rule in enumerate(rules, start=1)
        },
        "health": {name: _health(some) for name, some in read.items()},
        "texts": {name: [text.text for text in some] for name, some in read.items()},
    }


def winrate(rule: str, mine: Sequence[ProbeText], others: Sequence[ProbeText]) -> float:
    """Share of prompts where `mine` suits the rule better, ties counted half."""
    points = [
        (RULES[rule].prefers(a.text, b.text) + 1) / 2 for a, b in zip(mine, others, strict=True)
    ]
    return sum(points) / len(points)


def _winrates(
    read: Mapping[str, list[ProbeText]], user: int, users: int, rule: str
) -> dict[str, float]:
    """One persona's: its own texts, others' texts in its place, and the other methods'."""
    mine, own = read[f"user {user}"], f"own {user}"
    rates = {f"vs {other}": winrate(rule, mine, read[other]) for other in _OTHERS}
    rates |= {
        f"wrong {other}": winrate(rule, read[f"user {other}"], read["generic"])
        for other in range(1, users + 1)
        if other != user
    }
    for other in ("user {}", "pooled"):
        writer = other.format(user)
        if f"one draft {writer}" in read:
            name = "one draft" if writer != "pooled" else "pooled one draft"
            alone = read[f"one draft {writer}"]
            rates[f"{name} vs generic"] = winrate(rule, alone, read["generic"])
    if f"styles {user}" in read:
        rates["styles vs generic"] = winrate(rule, read[f"styles {user}"], read["generic"])
    if own in read:
        rates |= {f"own vs {x}": winrate(rule, read[own], read[x]) for x in ("generic", "base")}
    rates["pooled vs base"] = winrate(rule, read["pooled"], read["base"])
    return {name: round(rate, 4) for name, rate in rates.items()}


_OTHERS = ("generic", "base", "pooled")


def _health(texts: Sequence[ProbeText]) -> dict[str, Any]:
    figures = text_figures(texts)
    nll = [t.nll_nats / max(1, len(t.token_ids)) for t in texts]
    return {
        **asdict(figures),
        "nll_each": [round(value, 3) for value in nll],
        "loops": sum(repetition(text.text) > _LOOPING for text in texts),
    }
