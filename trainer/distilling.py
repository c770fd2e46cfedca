"""A wish in words → a prefix that does the same: context distillation (arXiv 2209.15189).

The model answers with the wish in its prompt (the teacher, `trainer.teaching`); a prefix is trained
until the model answers alike with the prefix in the wish's place. Only the prefix is trained.

Knows nothing of which wishes there are, and of users.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.teaching import Lesson, Taught, Teaching, next_logits, taught


@dataclass(frozen=True, slots=True, kw_only=True)
class Schooling:
    """How long and how hard; a wish took about five minutes on one core with a 135M model."""

    epochs: int = 4
    learning_rate: float = 1e-2
    batch: int = 2
    seed: int = 0
    teaching: Teaching = field(default_factory=Teaching)


def distil(
    base: LanguageModel,
    prompts: PromptFormat,
    lessons: Sequence[Lesson],
    start: Tensor,
    schooling: Schooling,
) -> tuple[Tensor, list[float]]:
    """Train a prefix (P, H) from `start` on the teacher's texts to `lessons`.

    Returns:
        The prefix on the CPU, and the mean KL(teacher ‖ student) per token of each epoch, nats.
    """
    examples = taught(base, prompts, lessons, schooling.teaching)
    prefix = torch.nn.Parameter(start.detach().clone().to(base.device))
    optimizer = torch.optim.AdamW([prefix], lr=schooling.learning_rate, weight_decay=0.0)
    curve = []
    for epoch in range(schooling.epochs):
        random.Random(f"{schooling.seed}/{epoch}").shuffle(examples)  # noqa: S311 - an order
        losses = []
        for first in range(0, len(examples), schooling.batch):
            some = examples[first : first + schooling.batch]
            optimizer.zero_grad()
            for example in some:
                loss = _divergence(base, example, prefix)
                losses.append(float(loss.detach()))
                (gradient,) = torch.autograd.grad(loss / len(some), prefix)
                prefix.grad = gradient if prefix.grad is None else prefix.grad + gradient
            optimizer.step()
        curve.append(sum(losses) / len(losses))
    return prefix.detach().cpu(), curve


def _divergence(base: LanguageModel, example: Taught, prefix: Tensor) -> Tensor:
    """KL(teacher ‖ student) over the teacher's likeliest tokens, mean per token, nats."""
    logits = next_logits(base, example.plain, example.token_ids, prefix)
    student = logits.log_softmax(-1).gather(-1, example.ids)
    # Tokens the teacher finds implausible are among its likeliest where few are plausible.
    return (torch.xlogy(example.probs, example.probs) - example.probs * student).sum(-1).mean()
