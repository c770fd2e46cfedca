"""Rows that join and leave decode as if each were alone, whatever the model's architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    FalconMambaConfig,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from trainer.decoding import DecodingBatch, check_cache

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "llama": LlamaConfig(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED),
    "mistral, sliding window": MistralConfig(**GROUPED, sliding_window=6),
    "gemma2, alternating windows": Gemma2Config(**GROUPED, sliding_window=6),
    "gpt-neox": GPTNeoXConfig(**SMALL),
}
LENGTHS = (5, 11, 3, 8)
NEW_TOKENS = 9


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False)
    model.train(False)
    return model


def prompts_of(model: PreTrainedModel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    embedding = model.get_input_embeddings()
    return [embedding(torch.randint(3, 97, (n,), generator=generator)) for n in LENGTHS]


def alone(model: Any, prompt: Tensor) -> list[int]:
    made = model.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=96,
        pad_token_id=0,
    )
    return list(made[0].tolist())


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_rows_joining_and_leaving_decode_as_if_alone(name: str) -> None:
    model = model_of(CONFIGS[name])
    check_cache(model)
    prompts = prompts_of(model)
    batch = DecodingBatch(model)
    made: list[list[int]] = [[] for _ in prompts]
    rows: list[int] = []
    for step in range(NEW_TOKENS + 8):
        if step == 0:
            batch.join(prompts[:2], [1, 1])
            rows += [0, 1]
        if step in (2, 5):
            batch.join([prompts[len(rows)]], [1]) if step == 2 else batch.join(prompts[3:], [1])
            rows.append(2 if step == 2 else 3)
        if not rows:
            break
        batch.logits[:, 96] = -torch.inf  # as min_new_tokens does in `generate`
        tokens = batch.logits.argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            made[row].append(token)
        stay = [i for i, row in enumerate(rows) if len(made[row]) < NEW_TOKENS]
        batch.keep(stay)
        rows = [rows[i] for i in stay]
        if rows:
            batch.advance(tokens[stay])
    assert len(batch) == 0
    assert made == [alone(model, prompt) for prompt in prompts]


@torch.inference_mode()
def test_copies_of_a_prompt_are_rows_of_their_own() -> None:
    model = model_of(CONFIGS["llama"])
    prompts = prompts_of(model)
    batch = DecodingBatch(model)
    batch.join(prompts[:2], [2, 1])
    assert len(batch) == 3
    assert torch.equal(batch.logits[0], batch.logits[1])
    batch.advance(torch.tensor([5, 6, 5]))
    assert not torch.equal(batch.logits[0], batch.logits[1])
    single = DecodingBatch(model)
    single.join(prompts[:1], [1])
    single.advance(torch.tensor([6]))
    assert torch.allclose(batch.logits[1], single.logits[0], atol=1e-4)


def test_a_recurrent_model_is_refused() -> None:
    config = FalconMambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ValueError, match="unsupported"):
        check_cache(model_of(config))
