"""Rows that join and leave decode as if each were alone, whatever the model's architecture."""

from __future__ import annotations

import pytest
import torch
from transformers import FalconMambaConfig

from tests.trainer.tiny_decoders import (
    CONFIGS,
    DEVICES,
    alone,
    in_company,
    model_of,
    prompts_of,
)
from trainer.decoding import DecodingBatch, check_cache


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_rows_joining_and_leaving_decode_as_if_alone(name: str, device: str) -> None:
    model = model_of(CONFIGS[name], device)
    check_cache(model)
    prompts = prompts_of(model)
    made = in_company(DecodingBatch(model), prompts)
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
