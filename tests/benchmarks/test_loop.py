"""The benchmark of the loop runs to its end, with as little to do as there can be."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from benchmarks.loop import Sizes, measure


@pytest.mark.browser
@pytest.mark.embedded
def test_the_loop_is_measured_from_the_first_pair_to_the_third_version(browser: Browser) -> None:
    figures = measure(Sizes(new_tokens=16, choices=4, pairs_alone=1, swaps=2), browser)
    assert figures["round_states"][:2] == ["promoted", "promoted"]
    assert figures["round_pairs"] == 8
    assert figures["swaps"] == 2
    assert figures["failed_requests_during_swap"] == 0
    for taken in (
        *("start_to_ready_s", "pair_s", "click_to_next_ms_p50", "click_to_next_ms_p95"),
        *("round_s", "round_train_s", "pair_s_during_round", "swap_stall_ms_max"),
    ):
        assert figures[taken] > 0, taken
