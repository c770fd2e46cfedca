"""Models and versions for engine tests: a tiny random Llama, and random adapters with vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from backend.engines.base import Condition, GenerationRequest, Message, Sampling
from backend.engines.rooms import AsItComes, Graph, Step
from dev.random_model import random_model
from trainer import artifacts
from trainer.adapter import adapter_config_json, initial_adapter
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel

USERS = (1, 2, 3, 4)


@dataclass
class Counting:
    """Captures nothing, and notes how often it was asked to, and beside how many."""

    steps: int = 0
    beside: list[bool] = field(default_factory=list)

    def __call__(self, step: Step, beside: Graph | None) -> Graph:
        self.steps += 1
        self.beside.append(beside is not None)
        return AsItComes(step)


def tiny_model(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """Two random layers; weights large enough that greedy choices are no near-ties."""
    made = random_model(
        tokenizer,
        "tiny",
        seed=0,
        hidden_size=48,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    made.model.get_output_embeddings().weight.mul_(4.0)
    return made


def write_random_version(
    base: LanguageModel,
    target: Path,
    *,
    seed: int,
    adapter_size: float = 0.05,
    offset_size: float = 0.5,
    change: Callable[[str, Tensor], tuple[str, Tensor]] = lambda name, tensor: (name, tensor),
) -> None:
    """A version as a round would write it: random non-zero adapter, vectors for `USERS`.

    Args:
        adapter_size: standard deviation of B's entries.
        offset_size: that of the offsets, against a word embedding's.
        change: applied to every name and tensor before it is written.
    """
    config = TrainConfig()
    torch.manual_seed(seed)
    adapter = {
        name: torch.randn_like(tensor) * adapter_size if "lora_B" in name else tensor
        for name, tensor in initial_adapter(base.model, config).items()
    }
    embedding = base.model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    words = embedding.weight[100 : 100 + config.prefix_tokens].float()
    offsets = torch.randn(len(USERS), *words.shape) * words.std() * offset_size
    vectors = {
        "generic": words.contiguous(),
        "user_ids": torch.tensor(USERS),
        "offsets": offsets,
    }
    files = {
        artifacts.TRAIN_CONFIG: json.dumps(config.to_json()).encode(),
        artifacts.ADAPTER_CONFIG: adapter_config_json(config),
        artifacts.ADAPTER_WEIGHTS: _save(adapter, change),
        artifacts.USER_VECTORS: _save(vectors, change),
    }
    artifacts.write_artifact(target, files, base_identity=base.identity)


def _save(tensors: dict[str, Tensor], change: Callable[[str, Tensor], tuple[str, Tensor]]) -> bytes:
    return safetensors.torch.save(dict(change(*item) for item in tensors.items()))


def messages_of(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def greedy(
    text: str, condition: Condition, user_id: int | None = None, tokens: int = 24
) -> GenerationRequest:
    return GenerationRequest(
        messages=messages_of(text),
        condition=condition,
        user_id=user_id,
        sampling=Sampling(temperature=0.0, max_new_tokens=tokens),
    )
