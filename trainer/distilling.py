"""A wish in words → a prefix that does the same: context distillation (arXiv 2209.15189).

The model answers with the wish in its prompt (the teacher); a prefix is trained until the model
answers alike with the prefix in the wish's place. Only the prefix is trained.

A small model hardly does what it is asked to, so the teacher goes further than the wish does: its
logits are pushed away from those without the wish, γ times as far, among the tokens that the wished
model finds plausible itself (contrastive decoding's bound, arXiv 2210.15097).

Knows nothing of which wishes there are, and of users.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.decoding import DecodingBatch
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt, PromptFormat, embed
from trainer.sampling import RowSampler, draw
from trainer.types import Message

_LIKELIEST = 50  # of the teacher's next tokens; the rest carries next to nothing
_PLAUSIBLE = 0.1  # of the likeliest token's probability
_TEMPERATURE, _TOP_P = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt twice: with the wish in it, and plain."""

    wished: tuple[Message, ...]
    plain: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schooling:
    """How long and how hard; the defaults took 90 to 190 s per wish and core on a 135M model.

    Attributes:
        guidance: γ, how many times as far as the wish itself the teacher goes.
    """

    epochs: int = 4
    learning_rate: float = 1e-2
    batch: int = 2
    new_tokens: int = 96
    guidance: float = 2.0
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


def guided(wished: Tensor, plain: Tensor, guidance: float) -> Tensor:
    """The teacher's log-probs (…, V): plain + γ · (wished − plain) among plausible tokens.

    Args:
        wished, plain: logits (…, V) of the same next token, with the wish in the prompt and not.
    """
    wish, bare = wished.log_softmax(-1), plain.log_softmax(-1)
    far = bare + guidance * (wish - bare)
    floor = wish.amax(-1, keepdim=True) + math.log(_PLAUSIBLE)
    return far.masked_fill(wish < floor, -math.inf).log_softmax(-1)


@torch.no_grad()
def _examples(
    base: LanguageModel, prompts: PromptFormat, lessons: Sequence[Lesson], schooling: Schooling
) -> list[_Example]:
    examples = []
    for lesson, text in zip(lessons, _texts(base, prompts, lessons, schooling), strict=True):
        # How short an answer is belongs to its style, so the end of turn is learnt too.
        ended = base.stop_ids[:1] if len(text) < schooling.new_tokens else ()
        ids = (*text, *ended)
        wished = prompts.encode(lesson.wished, with_prefix=False)
        bare = prompts.encode(lesson.plain, with_prefix=False)
        teacher = guided(
            _logits(base, wished, ids, None), _logits(base, bare, ids, None), schooling.guidance
        )
        likely = teacher.topk(_LIKELIEST, dim=-1)
        plain = prompts.encode(lesson.plain, with_prefix=True)
        examples.append(_Example(plain, ids, likely.values.exp(), likely.indices))
    return examples


def _texts(
    base: LanguageModel, prompts: PromptFormat, lessons: Sequence[Lesson], schooling: Schooling
) -> list[list[int]]:
    """What the teacher answers to each lesson, without the end of turn."""
    texts: list[list[int]] = [[] for _ in lessons]
    samplers = [
        RowSampler(temperature=_TEMPERATURE, top_p=_TOP_P, seed=schooling.seed + row)
        for row in range(len(lessons))
    ]
    asked = [lesson.wished for lesson in lessons] + [lesson.plain for lesson in lessons]
    batch = DecodingBatch(base.model)
    batch.join([_embedded(base, prompts, messages) for messages in asked], [1] * len(asked))
    rows = list(range(len(lessons)))
    while rows:
        wished, plain = batch.logits[: len(rows)].float(), batch.logits[len(rows) :].float()
        teacher = guided(wished, plain, schooling.guidance)
        tokens = draw(teacher, [samplers[row] for row in rows])
        stay = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token in base.stop_ids:
                continue
            texts[row].append(token)
            if len(texts[row]) < schooling.new_tokens:
                stay.append(place)
        both = [*stay, *(len(rows) + place for place in stay)]
        rows = [rows[place] for place in stay]
        batch.keep(both)
        if rows:
            batch.advance(tokens[stay].repeat(2))
    return texts


def _embedded(base: LanguageModel, prompts: PromptFormat, messages: Sequence[Message]) -> Tensor:
    """Input embeddings (T, H) of a prompt without a prefix."""
    encoded = prompts.encode(messages, with_prefix=False)
    ids = torch.tensor([encoded.token_ids], device=base.device)
    return embed(base.model.get_input_embeddings(), ids, [None], [None])[0]


def _divergence(base: LanguageModel, example: _Example, prefix: Tensor) -> Tensor:
    """KL(teacher ‖ student) over the teacher's likeliest tokens, mean per token, nats."""
    logits = _logits(base, example.plain, example.token_ids, prefix)
    student = logits.log_softmax(-1).gather(-1, example.ids)
    # Tokens the teacher finds implausible are among its likeliest where few are plausible.
    return (torch.xlogy(example.probs, example.probs) - example.probs * student).sum(-1).mean()


def _logits(
    base: LanguageModel, prompt: EncodedPrompt, text: Sequence[int], prefix: Tensor | None
) -> Tensor:
    """(T, V) fp32 logits of the next token at each place of `text`."""
    ids = torch.tensor([[*prompt.token_ids, *text[:-1]]], device=base.device)
    inputs = embed(base.model.get_input_embeddings(), ids, [prompt.prefix_start], [prefix])
    logits: Tensor = base.model(inputs_embeds=inputs, logits_to_keep=len(text)).logits
    return logits[0].float()
