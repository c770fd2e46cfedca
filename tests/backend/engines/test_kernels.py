"""Compiled once, whoever asks; and a compiler that cannot is none."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch

from backend.engines import kernels as module
from backend.engines.kernels import Kernels, build


def test_the_kernels_are_compiled_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    again = threading.Event()
    made: list[str] = []

    def build(compiler: str) -> None:
        made.append(compiler)
        if len(made) > 1:
            again.set()
        again.wait(0.2)  # time enough for another to come in, if it could

    def ask() -> None:
        together.wait(60)
        module.compiled_kernels()

    module._compiled.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(module, "build", build)
    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    module._compiled.cache_clear()
    assert made == ["cc"]


def test_a_compiler_that_fails_is_no_compiler(tmp_path: Path) -> None:
    assert build(str(tmp_path / "cc")) is None
    assert build("false") is None
    assert build("true") is None


def test_a_product_of_many_rows_is_made_some_at_a_time(kernels: Kernels) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(150, 20), torch.randn(9, 20), torch.randn(9)
    y = torch.empty(150, 9)
    kernels.linear(x.data_ptr(), w.data_ptr(), b.data_ptr(), y.data_ptr(), 150, 20, 9)
    assert torch.allclose(y, x @ w.T + b, atol=1e-5)
