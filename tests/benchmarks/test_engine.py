"""The engine's benchmark: what it counts as equal, how it takes turns, what it writes down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks import devices, engine_report
from benchmarks.engine import alternating, ceiling
from benchmarks.engine_equality import agreeing
from benchmarks.engine_report import section, write_report
from benchmarks.engine_world import Sides

DAY = date(2026, 11, 23)
FIGURES = {"kind": "float32", "machine": "a test", "model": "model x"}
BATCHES = [
    {"rows": 1, "engine": 30.0, "generate": 15.0},
    {"rows": 16, "engine": 150.0, "generate": 120.0},
]


@pytest.mark.parametrize(("made", "same"), [((1, 2, 3), 3), ((1, 5, 3), 1), ((4, 2, 3), 0)])
def test_tokens_agree_until_the_first_that_differs(made: tuple[int, ...], same: int) -> None:
    assert agreeing(made, (1, 2, 3)) == same


def test_works_take_turns_after_a_warm_up() -> None:
    done: list[str] = []
    medians = alternating([lambda: done.append("ours"), lambda: done.append("theirs")], 2)
    assert done == ["ours", "theirs"] * 3
    assert len(medians) == 2


class WeightOnCuda:
    device = torch.device("cuda")

    def numel(self) -> int:
        return 8

    def element_size(self) -> int:
        return 2


class SidesOnCuda:
    """As far as the ceiling on a GPU looks at them."""

    def __init__(self, done: list[str]) -> None:
        self._done = done
        self.weights = [WeightOnCuda()]

    def generate(self, *_: object, **__: object) -> None:
        self._done.append("pair")


def test_peak_memory_on_a_gpu_is_that_of_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def note(name: str, value: object = None) -> Callable[..., object]:
        def called(*_: object) -> object:
            done.append(name)
            return value

        return called

    monkeypatch.setattr(devices, "copy_bytes_per_s", note("copy", 1e9))
    monkeypatch.setattr(torch.cuda, "empty_cache", note("free"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", note("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", note("read", 7 << 20))
    figures = ceiling(cast(Sides, SidesOnCuda(done)), 1)
    assert done == ["copy", "free", "reset", *["pair"] * 4, "read"]
    assert figures["peak_memory_mb"] == 7


def test_the_section_holds_every_figure_and_every_batch() -> None:
    text = section(FIGURES | {"pair_vs_generate": 2.5}, BATCHES, day=DAY)
    assert '"pair_vs_generate": 2.5' in text
    assert "| 1 | 30.0 | 15.0 | 2.00 |" in text
    assert "| 16 | 150.0 | 120.0 | 1.25 |" in text


def test_a_report_renews_its_section_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_report, "_DOCS", tmp_path)
    (tmp_path / "RESULTS.md").write_text("# Results\n", "utf-8")
    write_report(FIGURES | {"pair_s": 3.0}, BATCHES, day=DAY)
    write_report(FIGURES | {"pair_s": 2.0}, BATCHES, day=DAY)
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert '"pair_s": 2.0' in text
    assert '"pair_s": 3.0' not in text
    assert (tmp_path / "figures" / "engine-batch-float32.png").stat().st_size > 1000


def test_a_gpu_has_a_section_and_a_plot_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_report, "_DOCS", tmp_path)
    (tmp_path / "RESULTS.md").write_text("# Results\n", "utf-8")
    for kind, seconds in (("bfloat16", 3.0), ("cuda bfloat16", 0.1)):
        write_report(FIGURES | {"kind": kind, "pair_s": seconds}, BATCHES, day=DAY)
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert '"pair_s": 3.0' in text
    assert '"pair_s": 0.1' in text
    assert (tmp_path / "figures" / "engine-batch-cuda-bfloat16.png").exists()
