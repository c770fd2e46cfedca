"""The benchmark of the desk: what its times come to, and that they are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from benchmarks.desk import SETTINGS, Pressed, measure, settings_told, summary
from benchmarks.times import percentile
from dev.running import RunningApp


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([10.0, 20.0], 50) == 15.0
    assert percentile([float(n) for n in range(101)], 95) == pytest.approx(95.0)
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0


def test_only_ready_pairs_are_timed_and_every_choice_counts() -> None:
    keys = [Pressed(40.0, True), Pressed(5000.0, False), Pressed(60.0, True)]
    assert summary(keys, seconds=9.0) == {
        "key_to_next_ms_p50": 50,
        "key_to_next_ms_p95": 59,
        "choices_per_minute": 20.0,
        "choices": 3,
        "pairs_ready": 2,
    }


def test_without_ready_pairs_there_is_no_figure() -> None:
    with pytest.raises(ValueError, match="only 1 of 2 pairs"):
        summary([Pressed(40.0, True), Pressed(50.0, False)], seconds=1.0)


def test_the_settings_are_told() -> None:
    told = settings_told(60, 20)
    assert (told["pairs"]["engine"], told["pairs"]["asked"]) == ("echo", 60)
    assert told["embedded"] == {"asked": 20, "trainer": "false", "log_level": "warning"}
    assert told["cores"] >= 1


@pytest.mark.browser
def test_it_measures_a_running_app(tmp_path: Path, new_page: Callable[..., Page]) -> None:
    with RunningApp(tmp_path / "data", **SETTINGS) as app:
        found = measure(new_page(), app.wait_ready(), 6)
    assert found["choices"] == 6
    assert 0 < found["key_to_next_ms_p50"] <= found["key_to_next_ms_p95"]
    assert 0 < found["choices_per_minute"] < 60 / 0.3  # the bar rests for 0.3 s after each choice
    assert found["bytes_first_load"] > 100_000
