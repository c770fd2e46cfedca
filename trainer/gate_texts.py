"""What probe texts say for or against a candidate: the gate's sixth rule (`trainer.gate`).

Knows nothing of torch, models and files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from trainer.config import GateConfig


@dataclass(frozen=True, slots=True)
class TextFigures:
    """How one writer's texts look.

    Attributes:
        mean_tokens: mean length, texts cut at the limit counted at the limit.
        nll_nats: the base model's negative log-likelihood per token; NaN without tokens.
        repetition: share of 4-grams that stood before, in the same text or in one before it.
        empty: texts without a visible character.
        texts: how many there are.
    """

    mean_tokens: float
    nll_nats: float
    repetition: float
    empty: int
    texts: int


def text_reasons(
    writer: str, texts: TextFigures, base: TextFigures, config: GateConfig
) -> list[str]:
    """What speaks against a writer's texts beside the base model's own."""
    who = who_wrote(writer)
    reasons = []
    if texts.empty > base.empty:
        reasons.append(f"{who}: {texts.empty} of the generated texts are empty")
    rise = texts.nll_nats - base.nll_nats
    if not rise <= config.max_nll_rise_nats + chance_nats(texts.texts, base.texts, config):
        reasons.append(
            f"{who}: generated texts are unlike language, {texts.nll_nats:.2f} nats per token "
            f"under the base model against {base.nll_nats:.2f} for its own"
        )
    ratio = texts.mean_tokens / base.mean_tokens if base.mean_tokens else 1.0
    if not config.min_length_ratio <= ratio <= config.max_length_ratio:
        reasons.append(
            f"{who}: generated texts have {texts.mean_tokens:.0f} tokens on average, "
            f"the base model's {base.mean_tokens:.0f}"
        )
    if not texts.repetition <= max(config.max_repetition, base.repetition):
        reasons.append(f"{who}: {texts.repetition:.0%} of the generated 4-grams are repeated")
    return reasons


def round_reasons(
    writer: str,
    texts: TextFigures,
    more: TextFigures,
    before: TextFigures,
    config: GateConfig,
) -> list[str]:
    """The texts of one who was in doubt, and more of them, against those before the round."""
    own = _together(texts, more)
    rise = own.nll_nats - before.nll_nats
    allowed = config.max_round_nll_rise_nats + chance_nats(own.texts, before.texts, config)
    if rise <= allowed:
        return []
    who = who_wrote(writer)
    return [
        f"{who}: the round makes generated texts unlike language, {rise:+.2f} nats per token "
        f"under the base model against those before, at most {allowed:+.2f} allowed"
    ]


def chance_nats(texts: int, others: int, config: GateConfig) -> float:
    """Twice the spread of the difference between means of so many texts, nats per token."""
    return 2 * config.text_spread_nats * math.sqrt(1 / texts + 1 / others)


def _together(texts: TextFigures, more: TextFigures) -> TextFigures:
    """With the likelihood of both; what else there is to see was seen of `texts`."""
    tokens, others = texts.mean_tokens * texts.texts, more.mean_tokens * more.texts
    nll = (texts.nll_nats * tokens + more.nll_nats * others) / (tokens + others)
    return replace(texts, nll_nats=nll, texts=texts.texts + more.texts)


def who_wrote(writer: str) -> str:
    """How sentences call a writer."""
    return "the generic user" if writer == "generic" else writer
