"""`python -m backend.direction_command`: what cannot work is one line and status 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend import direction_command
from backend.direction_command import main


def ask_for_quantization(model: Path, target: Path) -> Path:
    """A copy of the model's folder at `target`, said to be in a form whose reader is missing."""
    shutil.copytree(model, target)
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, model_path: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTUNE_MODEL", str(model_path))
    monkeypatch.setenv("ATTUNE_DEVICE", "cpu")
    monkeypatch.setenv("ATTUNE_CACHE_DIR", str(tmp_path / "cache"))


def test_a_quantized_model_whose_library_is_missing_is_one_line(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantized = ask_for_quantization(model_path, tmp_path / "quantized")
    monkeypatch.setenv("ATTUNE_MODEL", str(quantized))
    assert main([]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("attune: ")
    assert "quantized model requires" in last


def test_a_fault_on_the_gpu_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with …")

    monkeypatch.setattr(direction_command, "load_language_model", full)
    assert main([]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "attune: CUDA error: out of memory Compile with …"
