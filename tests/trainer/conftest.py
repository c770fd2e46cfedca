"""A random two-layer model with the embedded model's tokenizer, and pairs of opposed taste."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dev.random_model import random_model
from trainer.config import GateConfig, TrainConfig
from trainer.kernels import Kernels, kernels
from trainer.language_model import LanguageModel
from trainer.round import write_initial
from trainer.types import Message, PreferencePair, ResponseTokens, RoundRequest

IDENTITY = "1d" * 32
# Six directions at the scale of the random model's embeddings; for the styled user model only.
DIRECTIONS = 0.2 * torch.randn(6, 4, 32, generator=torch.Generator().manual_seed(8))
CONFIG = TrainConfig(
    prefix_tokens=4,
    epochs=3,
    lora_rank=4,
    lora_alpha=8,
    learning_rate_adapter=2e-3,
    learning_rate_vector=2e-2,
    # A random model's texts are noise of any likelihood, and training changes all of it.
    gate=GateConfig(
        probe_prompts=2,
        probe_new_tokens=12,
        max_nll_rise_nats=10.0,
        doubtful_nll_rise_nats=10.0,
        max_drift_nats=3.0,
    ),
)


@pytest.fixture
def compiled() -> Kernels:
    made = kernels()
    if made is None:
        pytest.skip("no C compiler here")
    return made


@pytest.fixture(scope="session")
def tokenizer(embedded_model_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)


@pytest.fixture
def base(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """A random model: hidden size 32, two layers, fp32, frozen."""
    return random_model(tokenizer, IDENTITY)


@pytest.fixture
def recipe() -> TrainConfig:
    """What `initial` is made by and `round_request` trains by; a module may override it."""
    return CONFIG


@pytest.fixture
def initial(base: LanguageModel, recipe: TrainConfig, tmp_path: Path) -> Path:
    """Directory of the version before the first round."""
    path = tmp_path / "versions" / "initial"
    write_initial(base, recipe, path, DIRECTIONS)
    return path


def prompt(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def opposed_pairs(
    tokenizer: PreTrainedTokenizerBase, users: tuple[int, int] = (1, 2), prompts: int = 4
) -> tuple[PreferencePair, ...]:
    """Over the same pairs of responses the first user prefers one kind, the second the other."""
    pairs = []
    for index in range(prompts):
        short = (*tokenizer.encode("Yes, do that now." + "!" * index), 2)
        long = tuple(tokenizer.encode(f"It depends on {index} things, which I shall explain."))
        messages = prompt(f"How do I start number {index}?")
        for order, user in enumerate(users):
            number = 4 * index + 2 * order
            one = ResponseTokens(response_id=number, token_ids=short)
            other = ResponseTokens(response_id=number + 1, token_ids=long)
            chosen, rejected = (one, other) if order == 0 else (other, one)
            pairs.append(
                PreferencePair(
                    pair_id=10 * index + order + 1,
                    user_id=user,
                    messages=messages,
                    chosen=chosen,
                    rejected=rejected,
                )
            )
    return tuple(pairs)


@pytest.fixture
def round_request(
    tokenizer: PreTrainedTokenizerBase, initial: Path, recipe: TrainConfig
) -> Callable[..., RoundRequest]:
    """Make a request; keyword arguments replace its defaults."""

    def make(**changes: object) -> RoundRequest:
        values: dict[str, object] = {
            "round_id": 1,
            "pairs": opposed_pairs(tokenizer),
            "held_out": (),
            "probe_prompts": (prompt("What is tea?"), prompt("Name a river.")),
            "parent": str(initial),
            "output": str(initial.parent / "round-1"),
            "config": recipe,
        }
        return RoundRequest(**{**values, **changes})  # type: ignore[arg-type]

    return make
