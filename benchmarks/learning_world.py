"""What the learning benchmark stands on: base model, prompts, texts written and read, pairs scored.

Uses the trainer's and the backend's own parts; nothing of the method is written again here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backend.engines.attention import use_one_token_attention, use_plain_attention
from backend.engines.kernels import compiled_kernels
from backend.engines.streaming import can_stream, stream, unstream
from backend.persona_rules import RULES
from backend.shipped_prompts import USUAL_ENDING, shipped, with_ending
from benchmarks.references import base_logps
from trainer.batching import PairRows, pair_rows
from trainer.language_model import LanguageModel
from trainer.probes import Probe, ProbeText, read_texts, write_texts
from trainer.prompting import PromptFormat
from trainer.scoring import response_logps
from trainer.types import Message, PreferencePair, ResponseTokens

_AT_ONCE = 32  # rows of a batch


@dataclass(frozen=True, slots=True)
class Asked:
    """One response wanted: the messages shown to the model and the vector (P, H) before them."""

    messages: tuple[Message, ...]
    prefix: Tensor | None


@dataclass(frozen=True, slots=True)
class Written:
    """One response: its tokens, end of turn included where it ended, and its text."""

    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class World:
    """The base model, how long responses may be, and the styles known beforehand.

    Attributes:
        directions: (K, P, H), of the styled user model; None for the others.
    """

    base: LanguageModel
    prompts: PromptFormat
    new_tokens: int
    forward_tokens: int
    directions: Tensor | None = None

    def write(self, asked: Sequence[Asked], *, seed: int) -> list[Written]:
        """Sample one response each under the model as it stands (an adapter may be attached)."""
        probes = [Probe(one.messages, one.prefix) for one in asked]
        # Stable: drafts of one prompt stay next to each other, and are read once.
        lengths = [sum(len(m["content"]) for m in probe.messages) for probe in probes]
        order = sorted(range(len(probes)), key=lengths.__getitem__)
        with quick_steps(self.base.model):
            texts = write_texts(
                self.base,
                self.prompts,
                [probes[i] for i in order],
                new_tokens=self.new_tokens,
                seed=seed,
                at_once=_AT_ONCE,
            )
        written = {i: self._written(ids) for i, ids in zip(order, texts, strict=True)}
        return [written[i] for i in range(len(asked))]

    def read(self, asked: Sequence[Asked], texts: Sequence[Written]) -> list[ProbeText]:
        """How likely the base model finds the texts; no adapter may be attached."""
        ended = self.base.stop_ids[0]
        return read_texts(
            self.base,
            self.prompts,
            [one.messages for one in asked],
            [tuple(t for t in text.token_ids if t != ended) for text in texts],
            max_tokens=self.forward_tokens,
        )

    def rows(self, pair: PreferencePair) -> PairRows:
        """Token rows of one pair."""
        return pair_rows(pair, self.prompts)

    def references(self, pairs: Sequence[PairRows]) -> dict[int, float]:
        """response_id → log π_ref, nats; no adapter may be attached."""
        return base_logps(self.base.model, pairs, max_tokens=self.forward_tokens)

    @torch.no_grad()
    def margins(
        self,
        pairs: Sequence[PairRows],
        prefixes: Sequence[Tensor],
        references: Mapping[int, float],
    ) -> list[float]:
        """h of each pair under its prefix and the adapter that is attached, nats."""
        rows = [row for p in pairs for row in (p.chosen, p.rejected)]
        both = [prefix for prefix in prefixes for _ in range(2)]
        logps = response_logps(self.base.model, rows, both, max_tokens=self.forward_tokens)
        moved = [
            float(chosen - rejected)
            - (references[p.pair.chosen.response_id] - references[p.pair.rejected.response_id])
            for p, (chosen, rejected) in zip(pairs, logps.view(-1, 2), strict=True)
        ]
        return moved

    def _written(self, ids: tuple[int, ...]) -> Written:
        text = str(self.base.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        ended = len(ids) < self.new_tokens
        return Written((*ids, self.base.stop_ids[0]) if ended else ids, text)


@contextmanager
def quick_steps(model: PreTrainedModel) -> Iterator[None]:
    """Decode as the engine does on one thread; afterwards the model is as it was."""
    kernels = compiled_kernels()
    if kernels is None or not can_stream(model, rows=_AT_ONCE, threads=0):
        yield
        return
    use_one_token_attention(model)
    stream(model, kernels)
    try:
        yield
    finally:
        unstream(model)
        use_plain_attention(model)


def preference(
    number: int, user: int, question: str, responses: tuple[Written, Written], rule: str
) -> PreferencePair | None:
    """What a persona of `rule` makes of two responses; None where it has no preference."""
    first, second = responses
    if not first.token_ids or not second.token_ids:
        return None
    verdict = RULES[rule].prefers(first.text, second.text)
    if verdict == 0:
        return None
    chosen, rejected = (first, second) if verdict > 0 else (second, first)
    return PreferencePair(
        pair_id=number,
        user_id=user,
        messages=as_prompt(question),
        chosen=ResponseTokens(2 * number, chosen.token_ids),
        rejected=ResponseTokens(2 * number + 1, rejected.token_ids),
    )


def as_prompt(question: str, wish: str = "") -> tuple[Message, ...]:
    """A single-turn prompt; where nothing else is wished for, responses shall end before the limit.

    Cut off at the limit, nearly all of them would be equally long, whatever a user likes.
    """
    return ({"role": "user", "content": with_ending(question, wish or USUAL_ENDING)},)


@dataclass(frozen=True, slots=True)
class Questions:
    """Prompts of one trial: choices are made on `training`, texts are judged on `held_out`."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def questions(*, tuning: bool, held_out: int, seed: int) -> Questions:
    """Prompts from the bank; those for tuning recipes and those for reports never meet."""
    bank = [prompt["text"] for prompt in shipped()]
    mine = [text for text in bank if _for_tuning(text) == tuning]
    random.Random(f"questions {seed}").shuffle(mine)
    return Questions(tuple(mine[held_out:]), tuple(mine[:held_out]))


def _for_tuning(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 0
