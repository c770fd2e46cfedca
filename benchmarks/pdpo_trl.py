"""TRL's `DPOTrainer` on the same pairs, one plain term, where it is installed.

At its best settings: reference log-probs known beforehand, no gradient checkpointing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel, load_language_model

MISSING = "TRL is not installed: pip install -r requirements-bench.txt"


def installed() -> bool:
    return importlib.util.find_spec("trl") is not None


class TrlStep:
    """One optimizer step of TRL's own trainer, on a base model of its own.

    Args:
        folder: where its trainer may write.
        like: whose device and dtype it takes.
    """

    def __init__(
        self,
        model: Path,
        config: TrainConfig,
        references: Mapping[int, float],
        folder: Path,
        like: LanguageModel,
    ) -> None:
        trl, peft = importlib.import_module("trl"), importlib.import_module("peft")
        datasets = importlib.import_module("datasets")
        dtype = str(like.model.dtype).removeprefix("torch.")
        device = like.device
        base = load_language_model(model, "benchmark", device=str(device), dtype=dtype)
        said = {"prompt": ["Hello"], "chosen": ["Hello to you"], "rejected": ["Go away"]}
        settings = trl.DPOConfig(
            output_dir=str(folder),
            use_cpu=device.type == "cpu",
            bf16=False,
            beta=config.beta,
            max_length=None,
            per_device_train_batch_size=config.batch_pairs,
            gradient_checkpointing=False,
            precompute_ref_log_probs=True,
            learning_rate=config.learning_rate_adapter,
            report_to="none",
            disable_tqdm=True,
        )
        lora = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules=list(config.lora_targets),
        )
        self._references = references
        self._trainer: Any = trl.DPOTrainer(
            model=base.model,
            args=settings,
            train_dataset=datasets.Dataset.from_dict(said),
            processing_class=base.tokenizer,
            peft_config=lora,
        )
        # The trainer looked up its one example's reference; ours are put into each batch.
        self._trainer.precompute_ref_logps = True
        self._trainer.model.train()
        self._optimizer = self._trainer.create_optimizer()

    def step(self, pairs: Sequence[PairRows]) -> None:
        """One step on the plain DPO loss of these pairs."""
        examples = [
            {
                "prompt_ids": list(p.reference_chosen.prompt.token_ids),
                "chosen_ids": list(p.pair.chosen.token_ids),
                "rejected_ids": list(p.pair.rejected.token_ids),
                "ref_chosen_logps": self._references[p.pair.chosen.response_id],
                "ref_rejected_logps": self._references[p.pair.rejected.response_id],
            }
            for p in pairs
        ]
        trainer = self._trainer
        batch = trainer._prepare_inputs(trainer.data_collator.torch_call(examples))
        trainer.compute_loss(trainer.model, batch).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
