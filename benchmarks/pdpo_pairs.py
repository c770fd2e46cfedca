"""Preference pairs of given lengths for the benchmark of the step, made from the prompt bank.

What a step costs depends on lengths and not on what is said, so responses are the bank's sentences
in a row: nothing is sampled, and everybody gets the same pairs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from backend.shipped_prompts import shipped
from trainer.batching import PairRows, pair_rows
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.types import PreferencePair, ResponseTokens

USERS = 4


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bounds in tokens, both included; a prompt's count the chat template and not the prefix."""

    prompt: tuple[int, int] = (40, 60)
    response: tuple[int, int] = (60, 72)


def made_up_pairs(
    base: LanguageModel, *, count: int, prefix_tokens: int, lengths: Lengths = Lengths(), seed: int
) -> list[PairRows]:
    """`count` pairs of `USERS` users in turn, each of its own prompt and responses."""
    rng = random.Random(f"pairs {seed}")
    tokens = _Sentences(base, rng)
    prompts = PromptFormat(base.tokenizer, prefix_tokens)
    around = len(prompts.encode(({"role": "user", "content": ""},), with_prefix=True).token_ids)
    pairs = []
    for number in range(count):
        asked = tokens.take(rng.randint(*lengths.prompt) - (around - prefix_tokens))
        chosen, rejected = (tokens.take(rng.randint(*lengths.response)) for _ in range(2))
        pair = PreferencePair(
            pair_id=number,
            user_id=1 + number % USERS,
            messages=({"role": "user", "content": str(base.tokenizer.decode(asked))},),
            chosen=ResponseTokens(2 * number, tuple(chosen)),
            rejected=ResponseTokens(2 * number + 1, tuple(rejected)),
        )
        pairs.append(pair_rows(pair, prompts))
    return pairs


class _Sentences:
    """The bank's sentences, shuffled, as one endless row of tokens."""

    def __init__(self, base: LanguageModel, rng: random.Random) -> None:
        self._texts = [prompt["text"] for prompt in shipped()]
        self._tokenizer = base.tokenizer
        self._rng = rng

    def take(self, count: int) -> list[int]:
        """So many tokens, at least one, beginning with a sentence."""
        ids: list[int] = []
        while len(ids) < max(1, count):
            text = self._rng.choice(self._texts) + " "
            ids += self._tokenizer.encode(text, add_special_tokens=False)
        return ids[: max(1, count)]
