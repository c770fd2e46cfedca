"""The shared LoRA adapter on a frozen base model: first weights, attaching, taking off again.

Weights travel under the names of PEFT's checkpoints, so that `PeftModel.from_pretrained` reads what
is written here. Knows nothing of training, users and files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, LoraModel, TaskType
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.config import TrainConfig

_NAME = "default"
_CHECKPOINT_PREFIX = "base_model.model."


class AttachedAdapter:
    """A LoRA adapter taking part in a model's forward pass.

    Attributes:
        parameters: checkpoint name → fp32 parameter, all that the adapter consists of.
    """

    def __init__(self, tuner: LoraModel, parameters: dict[str, nn.Parameter]) -> None:
        self._tuner = tuner
        self.parameters = parameters

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model computes exactly what the base model does: π_ref."""
        self._tuner.disable_adapter_layers()
        try:
            yield
        finally:
            self._tuner.enable_adapter_layers()

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, other weights take part; afterwards its own do again, bit for bit."""
        own = self.tensors()
        _copy_weights(self.parameters, weights)
        try:
            yield
        finally:
            _copy_weights(self.parameters, own)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, detached copies on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters.items()}


@contextmanager
def attached(
    model: PreTrainedModel, config: TrainConfig, weights: Mapping[str, Tensor]
) -> Iterator[AttachedAdapter]:
    """Attach `weights` to `model` in place; afterwards the model is what it was before.

    Raises:
        ValueError: `weights` are not those of this model and recipe.
    """
    tuner = LoraModel(model, {_NAME: _lora_config(config)}, _NAME)
    try:
        parameters: dict[str, nn.Parameter] = {}
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                for part in ("lora_A", "lora_B"):
                    # PEFT makes them in the base model's dtype. AdamW's small steps vanish in bf16.
                    factor = getattr(module, part)[_NAME]
                    factor.to(torch.promote_types(factor.weight.dtype, torch.float32))
                    parameters[_key(name, part)] = factor.weight
        _copy_weights(parameters, weights)
        yield AttachedAdapter(tuner, parameters)
    finally:
        tuner.unload()


def initial_adapter(model: PreTrainedModel, config: TrainConfig) -> dict[str, Tensor]:
    """LoRA weights that change nothing: A random (fixed by `config.seed`), B zero; fp32, CPU.

    The bounds of A are those of PEFT and of the LoRA paper's code: Kaiming-uniform, a = √5, which
    is ±1/√in_features. The model is only read.

    Raises:
        ValueError: the model has no module of a name in `config.lora_targets`.
    """
    generator = torch.Generator().manual_seed(config.seed)
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in config.lora_targets and isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            noise = torch.rand(config.lora_rank, module.in_features, generator=generator)
            weights[_key(name, "lora_A")] = (2 * noise - 1) * bound
            weights[_key(name, "lora_B")] = torch.zeros(module.out_features, config.lora_rank)
    if not weights:
        raise ValueError(f"the model has no modules named {', '.join(config.lora_targets)}")
    return weights


def adapter_config_json(config: TrainConfig) -> bytes:
    """PEFT's `adapter_config.json`, the same bytes for the same recipe."""
    content = _lora_config(config).to_dict()  # type: ignore[no-untyped-call]
    content["target_modules"] = sorted(config.lora_targets)
    content["inference_mode"] = True
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _lora_config(config: TrainConfig) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.lora_targets),
        lora_dropout=0.0,
        bias="none",
    )


def _key(module: str, part: str) -> str:
    return f"{_CHECKPOINT_PREFIX}{module}.{part}.weight"


@torch.no_grad()
def _copy_weights(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    if parameters.keys() != weights.keys():
        raise ValueError("the adapter belongs to another model or other target modules")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError("the adapter's rank or sizes are not this recipe's")
        parameter.copy_(weights[name])
