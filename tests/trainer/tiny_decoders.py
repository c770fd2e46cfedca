"""Tiny random models of several architectures, prompts for them, and what batches make of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from trainer.decoding import Batch

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "llama": LlamaConfig(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED),
    "gpt-neox": GPTNeoXConfig(**SMALL),
    "mistral, sliding window": MistralConfig(**GROUPED, sliding_window=6),
    "gemma2, alternating windows": Gemma2Config(**GROUPED, sliding_window=6),
}
PLAIN = ("llama", "qwen3", "gpt-neox")  # whose attention looks back over everything
LENGTHS = (5, 11, 3, 8)
NEW_TOKENS = 9
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def model_of(config: PreTrainedConfig, device: str = "cpu") -> PreTrainedModel:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    model.requires_grad_(False)
    model.train(False)
    nn.Module.to(model, device)
    return model


def prompts_of(model: PreTrainedModel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    embedding = model.get_input_embeddings()
    ids = [torch.randint(3, 97, (n,), generator=generator) for n in LENGTHS]
    return [embedding(some.to(model.device)) for some in ids]


def alone(model: Any, prompt: Tensor) -> list[int]:
    """One prompt through `generate`, greedily."""
    made = model.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=prompt.device),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=96,
        pad_token_id=0,
    )
    return list(made[0].tolist())


def in_company(batch: Batch, prompts: list[Tensor]) -> list[list[int]]:
    """The same for all, by a batch that they join at different times and leave when done."""
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
        tokens = batch.logits.argmax(-1).cpu()
        for row, token in zip(rows, tokens.tolist(), strict=True):
            made[row].append(token)
        stay = [i for i, row in enumerate(rows) if len(made[row]) < NEW_TOKENS]
        batch.keep(stay)
        rows = [rows[i] for i in stay]
        if rows:
            batch.advance(tokens[stay])
    assert len(batch) == 0
    return made
