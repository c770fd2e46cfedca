"""Models attached by a process of its own, over torch's shared memory: what CUDA does, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainer.language_model import LanguageModel
from trainer.sharing import CannotAttach, SharedModel, attach, on_one_gpu

ROOT = Path(__file__).parents[2]
IDS = torch.tensor([[5, 6, 7, 8]])
SHAPE: dict[str, Any] = {
    "vocab_size": 40_000,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
# Answers each line of handles, and each empty line once more, with what the model computes.
CHILD = """
import json, sys
from pathlib import Path
import torch
from trainer.sharing import attach
base = None
for line in sys.stdin:
    if line.strip():
        base = attach(Path(sys.argv[1]), "1d", line)
    model = base.model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        logits = model(ids).logits
    print(json.dumps({
        "logits": logits[0, -1].tolist(),
        "tied": model.get_input_embeddings().weight is model.get_output_embeddings().weight,
        "frozen": not any(p.requires_grad for p in model.parameters()) and not model.training,
    }), flush=True)
"""


@pytest.fixture
def child(embedded_model_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(embedded_model_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def ask(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def models() -> list[PreTrainedModel]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: list[PreTrainedModel] = [
            LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)),
            Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=False)),
            # Two kinds of rotary numbers, which no file holds.
            Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=16, sliding_window=8)),
        ]
    return [model.requires_grad_(False).train(False) for model in made]


def logits(model: PreTrainedModel) -> list[float]:
    with torch.inference_mode():
        values: list[float] = model(IDS).logits[0, -1].tolist()
    return values


@pytest.mark.usefixtures("file_system")
def test_another_process_computes_with_the_very_same_tensors(
    child: subprocess.Popen[str],
) -> None:
    for model in models():
        usual = logits(model)
        shared = SharedModel(model)
        # The owner exchanges its weights for others, as the engine does for a version.
        base = model.model.layers[0].self_attn.q_proj.weight
        own, base.data = base.data, torch.zeros_like(base)
        handles = shared.handles()
        assert handles is not None
        answer = ask(child, handles)
        base.data = own
        assert answer["logits"] == usual
        assert answer["frozen"]
        assert answer["tied"] == model.config.tie_word_embeddings

        # Nobody may do this; it shows that there is one copy.
        own.mul_(2)
        assert logits(model) != usual
        assert ask(child, "")["logits"] == logits(model)


@pytest.mark.usefixtures("file_system")
def test_nothing_moves_under_an_engine_that_reads_it() -> None:
    model, *_ = models()
    shared = SharedModel(model)
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert shared.handles() is not None
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places


def test_handles_that_lead_nowhere_are_an_error_of_their_own(tmp_path: Path) -> None:
    for handles in ("", "no base64", "bm8gcGlja2xl", "Y29zCm5vd2hlcmUKLg=="):
        with pytest.raises(CannotAttach):
            attach(tmp_path, "1d", handles)


def test_what_cannot_be_sent_is_said_in_the_log(
    base: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    base.model.note = lambda: None  # type: ignore[assignment] # no process can be sent a function without a name
    assert SharedModel(base.model).handles() is None
    assert "the base weights cannot be shared" in caplog.text


@pytest.mark.parametrize(
    ("serving", "training", "one"),
    [
        ("cuda:0", "cuda", True),
        ("cuda:0", "cuda:0", True),
        ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda", False),
        ("cuda:0", "cpu", False),
        ("cpu", "cpu", False),
        ("cpu", "cuda", False),
    ],
)
def test_one_copy_is_for_one_gpu(serving: str, training: str, one: bool) -> None:
    assert on_one_gpu(torch.device(serving), training) == one
