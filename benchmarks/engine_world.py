"""What the engine's benchmark compares: a version with users of their own, served by either side.

`Peer` is `transformers.generate` at its best: PEFT's merged weights, rows side by side from input
embeddings with left padding, and the head's input made contiguous, which is faster.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.base_model import BaseModel
from backend.engines.base import Condition, GenerationRequest, Message, Sampling, VersionRef
from backend.engines.local import LocalEngine
from backend.settings import load_settings
from trainer import artifacts
from trainer.adapter import adapter_config_json, initial_adapter
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel, load_language_model
from trainer.prompting import PromptFormat, embed

NEW_TOKENS = 64
BATCHES = (1, 2, 4, 8, 16)  # rows
USERS = tuple(range(1, 9))
PROMPTS = (
    "How do I start running?",
    "Explain in detail how bread is made, from the field to the table.",
    "Tell me a long story about a lighthouse keeper who could not sleep.",
    "What should I know before I adopt a dog?",
    "Describe a walk through an old town on a rainy day in autumn.",
    "How does a bicycle stay upright?",
    "Why do leaves change their colour, and why not everywhere at once?",
    "Give me ideas for a birthday party.",
)
_ADAPTER_SIZE = 0.01
_OFFSET_SIZE = 0.5  # of a word embedding's spread

Job = tuple[int, bool]  # user, sampled


def endless(base: LanguageModel) -> None:
    """Let no token end a response, so that both sides make as many."""
    base.model.generation_config.eos_token_id = [len(base.tokenizer)]


def write_version(base: LanguageModel, target: Path) -> None:
    """A version as after some rounds: an adapter that is not zero, eight users' vectors."""
    config = TrainConfig()
    generator = torch.Generator().manual_seed(7)

    def noise(shape: torch.Size, size: float) -> Tensor:
        return torch.randn(shape, generator=generator) * size

    adapter = {
        name: noise(tensor.shape, _ADAPTER_SIZE) if "lora_B" in name else tensor
        for name, tensor in initial_adapter(base.model, config).items()
    }
    embedding = base.model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    generic = embedding.weight[100 : 100 + config.prefix_tokens].float().cpu().contiguous()
    size = float(generic.std()) * _OFFSET_SIZE
    vectors = {
        "generic": generic,
        "user_ids": torch.tensor(USERS),
        "offsets": noise(torch.Size((len(USERS), *generic.shape)), size),
    }
    files = {
        artifacts.TRAIN_CONFIG: json.dumps(config.to_json()).encode(),
        artifacts.ADAPTER_CONFIG: adapter_config_json(config),
        artifacts.ADAPTER_WEIGHTS: safetensors.torch.save(adapter),
        artifacts.USER_VECTORS: safetensors.torch.save(vectors),
        artifacts.TRAINER_STATE: safetensors.torch.save({}),
    }
    artifacts.write_artifact(target, files, base_identity=base.identity)


def messages(user: int) -> tuple[Message, ...]:
    """What this user asks."""
    return ({"role": "user", "content": PROMPTS[user - 1]},)


def requests(user: int, rows: int, tokens: int, *, sampled: bool) -> list[GenerationRequest]:
    """Several responses to one user's prompt."""
    return [
        GenerationRequest(
            messages=messages(user),
            condition=Condition.PERSONAL,
            user_id=user,
            sampling=Sampling(
                temperature=0.8 if sampled else 0.0, max_new_tokens=tokens, seed=10 * user + row
            ),
        )
        for row in range(rows)
    ]


class Peer:
    """`transformers.generate` serving a version."""

    def __init__(self, base: LanguageModel, version: Path) -> None:
        """Take the model over and merge the version's adapter into it."""
        loaded = artifacts.load_version(version, base_identity=base.identity)
        prompts = PromptFormat(base.tokenizer, loaded.config.prefix_tokens)
        embedding = base.model.get_input_embeddings()
        self._prompts = {}
        for user in USERS:
            prompt = prompts.encode(messages(user), with_prefix=True)
            ids = torch.tensor([prompt.token_ids], device=base.device)
            vector = loaded.vectors.vector(user)
            self._prompts[user] = embed(embedding, ids, [prompt.prefix_start], [vector])[0]
        self._model = _merged(base.model, version)
        self._model.lm_head.register_forward_pre_hook(_contiguous)

    @torch.inference_mode()
    def generate(
        self, users: Sequence[int], rows: int, tokens: int, *, sampled: bool
    ) -> list[tuple[int, ...]]:
        """`rows` responses to each user's prompt, all in one batch."""
        prompts = [self._prompts[user] for user in users for _ in range(rows)]
        width = max(map(len, prompts))
        embeds = prompts[0].new_zeros(len(prompts), width, prompts[0].shape[-1])
        mask = torch.zeros(len(prompts), width, dtype=torch.long, device=embeds.device)
        for row, prompt in enumerate(prompts):
            embeds[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        drawing = {"temperature": 0.8, "top_p": 0.95, "top_k": 0} if sampled else {}
        made = self._model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            max_new_tokens=tokens,
            do_sample=sampled,
            pad_token_id=2,
            **drawing,
        )
        return [tuple(row) for row in made.tolist()]


def _merged(model: PreTrainedModel, version: Path) -> Any:  # `generate` is typed as a tensor
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a name it has deprecated.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        merging: Any = PeftModel.from_pretrained(model, version / "adapter")
        return merging.merge_and_unload()


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


class Sides:
    """One version, served by the engine as the app has it and by `Peer`."""

    def __init__(
        self, model: BaseModel, version: Path, told: argparse.Namespace, stack: ExitStack
    ) -> None:
        self._model, self._version, self._told, self._stack = model, version, told, stack
        plain = self._load()
        write_version(plain, version)
        self.weights = [w.weight for w in plain.model.modules() if isinstance(w, nn.Linear)]
        self.peer = Peer(plain, version)
        self._served = self.engine()

    def engine(self, *, capture: bool = True) -> LocalEngine:
        """One more engine.

        Args:
            capture: on a GPU; otherwise its steps are run as they come.
        """
        rows = max(load_settings({}).max_batch, BATCHES[-1])
        engine = LocalEngine(
            self._load(), max_batch=rows, threads=self._told.threads, capture=capture
        )
        self._stack.callback(engine.close)
        engine.swap(VersionRef(1, self._version))
        return engine

    def _load(self) -> LanguageModel:
        base = load_language_model(
            self._model.path,
            self._model.identity,
            device=self._told.device,
            dtype=self._told.dtype,
        )
        endless(base)
        return base

    def generate(
        self, users: Sequence[int], rows: int, tokens: int, *, sampled: bool
    ) -> list[tuple[int, ...]]:
        """The same as `Peer.generate`: a call per user, all at once."""
        calls = [self._served.generate(requests(u, rows, tokens, sampled=sampled)) for u in users]
        return [made.token_ids for call in calls for made in call.result()]

    def first_text_s(self) -> float:
        """From the call until somebody could read something."""
        started = time.perf_counter()
        running = self._served.generate(requests(1, 2, NEW_TOKENS, sampled=True))
        next(state for state in running.stream() if any(state))
        seconds = time.perf_counter() - started
        running.cancel()
        running.result()
        return seconds
