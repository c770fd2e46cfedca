"""A wish in words → a prefix that does the same: context distillation (arXiv 2209.15189).

The model answers with the wish in its prompt (the teacher); a prefix is trained until the model
answers alike with the prefix in the wish's place. Only the prefix is trained. Knows nothing of
which wishes there are, and of users.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.language_model import LanguageModel
from trainer.probes import Probe, write_texts
from trainer.prompting import EncodedPrompt, PromptFormat, embed
from trainer.types import Message

_LIKELIEST = 100  # of the teacher's next tokens; the rest carries next to nothing


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt twice: with the wish in it, and plain."""

    wished: tuple[Message, ...]
    plain: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schooling:
    """How long and how hard; the defaults took 80 s per wish and core on a 135M model."""

    epochs: int = 4
    learning_rate: float = 1e-2
    batch: int = 2
    new_tokens: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Example:
    """A text of the teacher's, and how likely its next tokens were: (T, N) each."""

    plain: EncodedPrompt
    token_ids: tuple[int, ...]
    probs: Tensor
    ids: Tensor


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
    examples = _examples(base, prompts, lessons, schooling)
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


@torch.no_grad()
def _examples(
    base: LanguageModel, prompts: PromptFormat, lessons: Sequence[Lesson], schooling: Schooling
) -> list[_Example]:
    texts = write_texts(
        base,
        prompts,
        [Probe(lesson.wished, None) for lesson in lessons],
        new_tokens=schooling.new_tokens,
        seed=schooling.seed,
    )
    examples = []
    for lesson, text in zip(lessons, texts, strict=True):
        # How short an answer is belongs to its style, so the end of turn is learnt too.
        ids = (*text, base.stop_ids[0]) if len(text) < schooling.new_tokens else text
        wished = prompts.encode(lesson.wished, with_prefix=False)
        likely = _logps(base, wished, ids, None).topk(_LIKELIEST, dim=-1)
        plain = prompts.encode(lesson.plain, with_prefix=True)
        examples.append(_Example(plain, ids, likely.values.exp(), likely.indices))
    return examples


def _divergence(base: LanguageModel, example: _Example, prefix: Tensor) -> Tensor:
    """KL(teacher ‖ student) over the teacher's likeliest tokens, mean per token, nats."""
    student = _logps(base, example.plain, example.token_ids, prefix).gather(-1, example.ids)
    return (example.probs * (example.probs.log() - student)).sum(-1).mean()


def _logps(
    base: LanguageModel, prompt: EncodedPrompt, text: Sequence[int], prefix: Tensor | None
) -> Tensor:
    """(T, V) log-probs of the next token at each place of `text`."""
    ids = torch.tensor([[*prompt.token_ids, *text[:-1]]], device=base.device)
    inputs = embed(base.model.get_input_embeddings(), ids, [prompt.prefix_start], [prefix])
    logits: Tensor = base.model(inputs_embeds=inputs, logits_to_keep=len(text)).logits
    return logits[0].float().log_softmax(-1)
