"""What a prefix is taught by: texts the model writes with a wish in its prompt, well chosen.

A small model hardly does what it is asked to, so the teacher goes further than the wish does: its
logits are pushed away from those without the wish, γ times as far, among the tokens that the wished
model finds plausible itself (contrastive decoding's bound, arXiv 2210.15097).

It also likes to speak of the wish instead of granting it ("Scientists use precise terms …"), the
more the further it is pushed. So words that only the wish brings in are barred, and of several
texts the one is kept that its own question explains best and that repeats itself least.

Knows nothing of prefixes and of which wishes there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.batching import Row
from trainer.decoding import DecodingBatch
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt, PromptFormat, embed
from trainer.sampling import RowSampler, draw
from trainer.scoring import response_logps
from trainer.types import Message

_LIKELIEST = 50
_PLAUSIBLE = 0.1  # of the likeliest token's probability
_TEMPERATURE, _TOP_P = 0.8, 0.95
_ROWS = 32
_FORWARD_TOKENS = 2048
# What is short is grammar, or too common to tell that the wish is spoken of.
_WORD = re.compile(r"[^\W\d_]{6,}")
_STEM = 5


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt twice: with the wish in it, and plain."""

    wished: tuple[Message, ...]
    plain: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """How texts are written and chosen.

    Attributes:
        guidance: γ, how many times as far as the wish itself the teacher goes.
        drafts: texts per lesson; one of them is kept.
    """

    new_tokens: int = 96
    guidance: float = 2.0
    drafts: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Taught:
    """A text of the teacher's after the plain prompt, and how likely its next tokens were.

    Attributes:
        probs, ids: (T, N), the likeliest at each place; the rest carries next to nothing.
    """

    plain: EncodedPrompt
    token_ids: tuple[int, ...]
    probs: Tensor
    ids: Tensor


@torch.no_grad()
def taught(
    base: LanguageModel, prompts: PromptFormat, lessons: Sequence[Lesson], teaching: Teaching
) -> list[Taught]:
    """The best of the teacher's texts to each lesson, at least two lessons."""
    barred = [barred_tokens(base, lesson) for lesson in lessons]
    chosen = _best(base, prompts, lessons, _drafts(base, prompts, lessons, barred, teaching))
    found = []
    for lesson, text, bar in zip(lessons, chosen, barred, strict=True):
        # How short an answer is belongs to its style, so the end of turn is learnt too.
        ended = base.stop_ids[:1] if len(text) < teaching.new_tokens else ()
        ids = (*text, *ended)
        wished = next_logits(base, prompts.encode(lesson.wished, with_prefix=False), ids)
        bare = next_logits(base, prompts.encode(lesson.plain, with_prefix=False), ids)
        logps = guided(wished.masked_fill(bar, -math.inf), bare, teaching.guidance)
        likely = logps.topk(_LIKELIEST, dim=-1)
        plain = prompts.encode(lesson.plain, with_prefix=True)
        found.append(Taught(plain, ids, likely.values.exp(), likely.indices))
    return found


def guided(wished: Tensor, plain: Tensor, guidance: float) -> Tensor:
    """The teacher's log-probs (…, V): plain + γ · (wished − plain) among plausible tokens.

    Args:
        wished, plain: logits (…, V) of the same next token, with the wish in the prompt and not.
    """
    wish, bare = wished.log_softmax(-1), plain.log_softmax(-1)
    far = bare + guidance * (wish - bare)
    floor = wish.amax(-1, keepdim=True) + math.log(_PLAUSIBLE)
    return far.masked_fill(wish < floor, -math.inf).log_softmax(-1)


def barred_tokens(base: LanguageModel, lesson: Lesson) -> Tensor:
    """(V,) bool on the model's device: echoes of the wish, and what is no token.

    V is the width of the head's logits: many heads are padded beyond the tokenizer.
    """
    width = base.model.config.get_text_config().vocab_size
    words = echoes(base.tokenizer, lesson)[:width]
    barred = torch.ones(width, dtype=torch.bool)
    barred[: len(words)] = words
    return barred.to(base.device)


def echoes(tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> Tensor:
    """(N,) bool, of the tokenizer's N tokens: begins like a longer word that only the wish has."""
    wish = _stems(lesson.wished) - _stems(lesson.plain)
    words = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return torch.tensor([word.strip().casefold()[:_STEM] in wish for word in words])


def next_logits(
    base: LanguageModel, prompt: EncodedPrompt, text: Sequence[int], prefix: Tensor | None = None
) -> Tensor:
    """(T, V) fp32 logits of the next token at each place of `text`, under a prefix (P, H)."""
    ids = torch.tensor([[*prompt.token_ids, *text[:-1]]], device=base.device)
    inputs = embed(base.model.get_input_embeddings(), ids, [prompt.prefix_start], [prefix])
    logits: Tensor = base.model(inputs_embeds=inputs, logits_to_keep=len(text)).logits
    return logits[0].float()


def _stems(messages: Sequence[Message]) -> set[str]:
    words = _WORD.findall(" ".join(message["content"] for message in messages).casefold())
    return {word[:_STEM] for word in words}


def _drafts(
    base: LanguageModel,
    prompts: PromptFormat,
    lessons: Sequence[Lesson],
    barred: Sequence[Tensor],
    teaching: Teaching,
) -> list[list[tuple[int, ...]]]:
    """`drafts` texts for each lesson, without the end of turn."""
    found: list[list[tuple[int, ...]]] = [[] for _ in lessons]
    asked = [row for _ in range(teaching.drafts) for row in range(len(lessons))]
    for first in range(0, len(asked), _ROWS):
        some = asked[first : first + _ROWS]
        texts = _written(
            base,
            prompts,
            [lessons[row] for row in some],
            torch.stack([barred[row] for row in some]),
            teaching,
            seed=teaching.seed + first,
        )
        for row, text in zip(some, texts, strict=True):
            found[row].append(text)
    return found


def _written(
    base: LanguageModel,
    prompts: PromptFormat,
    lessons: Sequence[Lesson],
    barred: Tensor,
    teaching: Teaching,
    *,
    seed: int,
) -> list[tuple[int, ...]]:
    texts: list[list[int]] = [[] for _ in lessons]
    samplers = [
        RowSampler(temperature=_TEMPERATURE, top_p=_TOP_P, seed=seed + row)
        for row in range(len(lessons))
    ]
    asked = [lesson.wished for lesson in lessons] + [lesson.plain for lesson in lessons]
    batch = DecodingBatch(base.model)
    batch.join([_embedded(base, prompts, messages) for messages in asked], [1] * len(asked))
    rows = list(range(len(lessons)))
    while rows:
        wished, plain = batch.logits[: len(rows)].float(), batch.logits[len(rows) :].float()
        teacher = guided(wished.masked_fill(barred[rows], -math.inf), plain, teaching.guidance)
        tokens = draw(teacher, [samplers[row] for row in rows])
        stay = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token in base.stop_ids:
                continue
            texts[row].append(token)
            if len(texts[row]) < teaching.new_tokens:
                stay.append(place)
        both = [*stay, *(len(rows) + place for place in stay)]
        rows = [rows[place] for place in stay]
        batch.keep(both)
        if rows:
            batch.advance(tokens[stay].repeat(2))
    return [tuple(text) for text in texts]


def _embedded(base: LanguageModel, prompts: PromptFormat, messages: Sequence[Message]) -> Tensor:
    """Input embeddings (T, H) of a prompt without a prefix."""
    encoded = prompts.encode(messages, with_prefix=False)
    ids = torch.tensor([encoded.token_ids], device=base.device)
    return embed(base.model.get_input_embeddings(), ids, [None], [None])[0]


def _best(
    base: LanguageModel,
    prompts: PromptFormat,
    lessons: Sequence[Lesson],
    drafts: Sequence[Sequence[tuple[int, ...]]],
) -> list[tuple[int, ...]]:
    """Of each lesson's texts the one with most relevance (nats per token) less repetition.

    Relevance: how much likelier the base model finds a text after its own question than after the
    next lesson's. A text about the wish, or about nothing, is as likely after either.
    """
    asked = [prompts.encode(lesson.plain, with_prefix=False) for lesson in lessons]
    texts = [(row, text) for row, some in enumerate(drafts) for text in some if text]
    rows = [Row(asked[row], text) for row, text in texts]
    rows += [Row(asked[(row + 1) % len(asked)], text) for row, text in texts]
    logps = response_logps(base.model, rows, [None] * len(rows), max_tokens=_FORWARD_TOKENS)
    best: list[tuple[float, tuple[int, ...]]] = [(-math.inf, ())] * len(lessons)
    for (row, text), own, other in zip(texts, *logps.view(2, -1).tolist(), strict=True):
        worth = (own - other) / len(text) - _repetition(text)
        best[row] = max(best[row], (worth, text))
    return [text for _, text in best]


def _repetition(text: Sequence[int]) -> float:
    """Share of 4-grams that stood before."""
    grams = [tuple(text[i : i + 4]) for i in range(len(text) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
