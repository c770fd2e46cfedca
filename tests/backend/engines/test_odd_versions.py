"""A version whose tensors do not fit the model is refused, and what was served goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backend.engines.base import VersionRef
from backend.engines.local import LocalEngine
from tests.backend.engines.making import write_random_version
from trainer.artifacts import ArtifactDamaged
from trainer.language_model import LanguageModel


@pytest.fixture
def engine(tiny: LanguageModel, tmp_path: Path) -> Iterator[LocalEngine]:
    write_random_version(tiny, tmp_path / "version", seed=5)
    engine = LocalEngine(tiny, threads=1)
    engine.swap(VersionRef(1, tmp_path / "version"))
    yield engine
    engine.close()


@pytest.mark.parametrize("fault", ["shape", "nan", "name", "vector"])
def test_an_adapter_that_does_not_fit_is_refused(
    engine: LocalEngine, tiny: LanguageModel, tmp_path: Path, fault: str
) -> None:
    write_random_version(tiny, tmp_path / "odd", seed=6, change=lambda n, t: spoilt(fault, n, t))
    live = engine.live_version
    with pytest.raises(ArtifactDamaged):
        engine.swap(VersionRef(2, tmp_path / "odd"))
    assert engine.live_version == live


def spoilt(fault: str, name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """One tensor of a version file, made wrong."""
    if fault == "shape" and "layers.0.self_attn.q_proj.lora_A" in name:
        return name, tensor[:, :-1].contiguous()
    if fault == "nan" and "layers.1.self_attn.v_proj.lora_B" in name:
        return name, tensor * torch.nan
    if fault == "name":
        return name.replace("layers.1", "layers.7"), tensor
    if fault == "vector" and name in ("generic", "offsets"):
        return name, tensor[..., :-1].contiguous()
    return name, tensor
