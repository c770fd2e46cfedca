from __future__ import annotations

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from peft import PeftModel

from tests.trainer.conftest import CONFIG
from trainer import artifacts
from trainer.adapter import adapter_config_json, attached, initial_adapter

IDS = torch.tensor([[1, 9, 8, 7]])


def logits(base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(input_ids=IDS).logits


def loud(base) -> dict[str, torch.Tensor]:
    """An adapter with an effect: B is not zero."""
    weights = initial_adapter(base.model, CONFIG)
    return {n: w if "lora_A" in n else torch.full_like(w, 0.2) for n, w in weights.items()}


def test_the_initial_adapter_changes_nothing(base) -> None:
    before = logits(base)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)):
        assert torch.equal(logits(base), before)


def test_the_initial_adapter_is_fixed_by_the_seed(base) -> None:
    one, same = initial_adapter(base.model, CONFIG), initial_adapter(base.model, CONFIG)
    other = initial_adapter(base.model, replace(CONFIG, seed=1))
    name = next(n for n in one if "lora_A" in n)
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    assert 0 < one[name].abs().max() <= 32**-0.5


def test_disabled_is_the_base_model_and_detached_leaves_no_trace(base) -> None:
    before = logits(base)
    modules = [(name, id(module)) for name, module in base.model.named_modules()]
    attributes = set(vars(base.model))
    with attached(base.model, CONFIG, loud(base)) as adapter:
        assert not torch.allclose(logits(base), before)
        with adapter.disabled():
            assert torch.equal(logits(base), before)
        assert not torch.allclose(logits(base), before)
    assert torch.equal(logits(base), before)
    assert modules == [(name, id(module)) for name, module in base.model.named_modules()]
    assert set(vars(base.model)) == attributes
    assert not any(p.requires_grad for p in base.model.parameters())


def test_in_a_bfloat16_model_the_weights_stay_what_they_were(base) -> None:
    base.model.to(torch.bfloat16)
    weights = loud(base)
    with attached(base.model, CONFIG, weights) as adapter:
        assert logits(base).dtype == torch.bfloat16
        tensors = adapter.tensors()
    assert all(torch.equal(tensors[name], weight) for name, weight in weights.items())


def test_an_error_inside_detaches_too(base) -> None:
    modules = [id(module) for module in base.model.modules()]
    with pytest.raises(KeyError), attached(base.model, CONFIG, loud(base)):
        raise KeyError("x")
    assert modules == [id(module) for module in base.model.modules()]


def test_weights_of_another_shape_or_model_are_refused(base) -> None:
    weights = loud(base)
    wide = replace(CONFIG, lora_rank=8)
    with pytest.raises(ValueError, match="rank"), attached(base.model, wide, weights):
        pass
    weights.popitem()
    with pytest.raises(ValueError, match="another model"), attached(base.model, CONFIG, weights):
        pass


def test_target_modules_that_do_not_exist_are_refused(base) -> None:
    with pytest.raises(ValueError, match="no modules named nope"):
        initial_adapter(base.model, replace(CONFIG, lora_targets=("nope",)))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_loads_what_is_written_and_computes_the_same(base, tmp_path) -> None:
    weights = loud(base)
    with attached(base.model, CONFIG, weights) as adapter:
        ours = logits(base)
        files = {
            artifacts.ADAPTER_CONFIG: adapter_config_json(CONFIG),
            artifacts.ADAPTER_WEIGHTS: safetensors.torch.save(adapter.tensors()),
        }
    artifacts.write_artifact(tmp_path / "v", files, base_identity="x")
    model = PeftModel.from_pretrained(base.model, str(tmp_path / "v" / "adapter"))
    with torch.no_grad():
        theirs = model(input_ids=IDS).logits
    torch.testing.assert_close(theirs, ours)


def test_the_config_names_no_path_and_is_the_same_bytes_every_time(base) -> None:
    content = json.loads(adapter_config_json(CONFIG))
    assert content["base_model_name_or_path"] is None
    assert content["target_modules"] == sorted(CONFIG.lora_targets)
    assert adapter_config_json(CONFIG) == adapter_config_json(CONFIG)
