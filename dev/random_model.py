"""A random model of two layers: shows that everything runs, and nothing of how well."""

from __future__ import annotations

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from trainer.language_model import LanguageModel

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def random_model(
    tokenizer: PreTrainedTokenizerBase, identity: str, *, seed: int = 5, **shape: object
) -> LanguageModel:
    """A frozen Llama in fp32 that speaks the tokenizer's words; the same for the same seed.

    Args:
        shape: what of its `LlamaConfig` is another than usual here.
    """
    config = LlamaConfig(**{"vocab_size": len(tokenizer)} | _ENDS | _SHAPE | shape)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**_ENDS)  # type: ignore[no-untyped-call]
    model.requires_grad_(False)
    return LanguageModel(model.train(False), tokenizer, identity)
