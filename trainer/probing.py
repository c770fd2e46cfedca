"""Lets the writers of a round write probe texts, and reads what became of the base model's own.

A writer is a user id, or None for the generic user. Knows nothing of pairs and bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts, Probe, ProbeText, read_texts, text_drops, write_texts
from trainer.prompting import PromptFormat, personal_messages
from trainer.types import Message

_DRIFT_TEXTS = 4

_Made = TypeVar("_Made")
Vectors = Mapping[int | None, Tensor]  # (P, H) by writer


def writer_name(user_id: int | None) -> str:
    """How figures call a writer."""
    return "generic" if user_id is None else f"user {user_id}"


@dataclass(frozen=True, slots=True)
class Probing:
    """What probe texts are made with; the model has `adapter` attached.

    Attributes:
        messages: the prompts to answer. profiles: of users who wrote one.
    """

    base: LanguageModel
    adapter: AttachedAdapter
    messages: tuple[tuple[Message, ...], ...]
    profiles: Mapping[int | None, str]
    base_texts: BaseTexts
    config: TrainConfig

    def base_own(self) -> list[ProbeText]:
        """The base model's own texts."""
        with self.adapter.disabled():
            return self.base_texts.get(
                self.base,
                self._format,
                self.messages,
                new_tokens=self.config.gate.probe_new_tokens,
                max_tokens=self.config.forward_tokens,
            )

    @torch.no_grad()
    def written(
        self, vectors: Vectors, seed: int, *, times: int = 1
    ) -> dict[int | None, list[ProbeText]]:
        """So many texts per prompt under each vector; one generate call for all of them.

        Users write with their profiles in the prompt, as they are served; the base model reads what
        they wrote without.
        """
        probes = [
            Probe(personal_messages(prompt, self.profiles.get(user, "")), vector)
            for user, vector in vectors.items()
            for prompt in self.messages * times
        ]
        limit, most = self.config.gate.probe_new_tokens, self.config.forward_tokens
        ids = write_texts(self.base, self._format, probes, new_tokens=limit, seed=seed)
        asked = list(self.messages * times) * len(vectors)
        with self.adapter.disabled():
            texts = read_texts(self.base, self._format, asked, ids, max_tokens=most)
        return dict(zip(vectors, _in_turn(texts, len(self.messages) * times), strict=True))

    @torch.no_grad()
    def drift_nats(self, vectors: Vectors, own: Sequence[ProbeText]) -> dict[int | None, float]:
        """By how much the base model's `own` texts are less likely under each, nats per token.

        Without profiles: what the weights do is asked here, not what a profile does.
        """
        some = list(zip(self.messages, own, strict=True))[:_DRIFT_TEXTS]
        drops = text_drops(
            self.base,
            self._format,
            [Probe(prompt, vector) for vector in vectors.values() for prompt, _ in some],
            [text for _, text in some] * len(vectors),
            max_tokens=self.config.forward_tokens,
        )
        means = [sum(theirs) / len(theirs) for theirs in _in_turn(drops, len(some))]
        return dict(zip(vectors, means, strict=True))

    @property
    def _format(self) -> PromptFormat:
        return PromptFormat(self.base.tokenizer, self.config.prefix_tokens)


def _in_turn(made: Sequence[_Made], each: int) -> list[list[_Made]]:
    return [list(made[at : at + each]) for at in range(0, len(made), each)]


def samples(
    condition: str,
    user: int | None,
    messages: Sequence[tuple[Message, ...]],
    texts: Sequence[ProbeText],
) -> list[dict[str, Any]]:
    """Texts as they are kept beside a round."""
    return [
        {
            "condition": condition,
            "user_id": user,
            "prompt": prompt[-1]["content"],
            "text": text.text,
            "tokens": len(text.token_ids),
            "nll_nats": text.nll_nats / max(1, len(text.token_ids)),
        }
        for prompt, text in zip(messages, texts, strict=True)
    ]
