"""A folder of base-model weights → a frozen transformers model with its tokenizer.

Knows nothing of where the folder came from (`backend/base_model.py` does) and of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The frozen base model π_ref and what belongs to it.

    Attributes:
        model: in eval mode, no parameter requires a gradient.
        tokenizer: with a chat template.
        identity: checksum of the weights; reference log-probs and artifacts are keyed by it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: str

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a response."""
        stop = self.model.generation_config.eos_token_id
        if stop is None:
            stop = self.tokenizer.eos_token_id
        return tuple(stop) if isinstance(stop, (list, tuple)) else (stop,)


def load_language_model(
    path: Path, identity: str, *, device: str = "auto", dtype: str = "auto"
) -> LanguageModel:
    """Load base weights and tokenizer from `path`, frozen.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", …
        dtype: "auto", "float32" or "bfloat16"; auto is bfloat16 on hardware that multiplies it
            natively, float32 elsewhere (emulated bfloat16 is four times slower than float32).

    Raises:
        OSError: a file is missing. ValueError: the tokenizer has no chat template.
    """
    chosen_device = resolve_device(device)
    set_up(chosen_device)
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=_dtype(dtype, chosen_device), local_files_only=True
    )
    tokenizer = load_tokenizer(path)
    nn.Module.to(model, chosen_device)
    model.requires_grad_(False)  # from_pretrained has set eval mode
    return LanguageModel(model, tokenizer, identity)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`.

    Raises:
        OSError: a file is missing. ValueError: it has no chat template.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError("the model's tokenizer has no chat template; use an instruct model")
    return tokenizer


def resolve_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_up(device: torch.device) -> None:
    """Tell torch, once in a process, what suits our work on this device.

    On CUDA: no attention by cuDNN, which plans anew for every length, and lengths here are never
    twice the same.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32
