"""The table of traits: what of it is drawn by hand, and that its file says all of it."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from backend.styles import load_styles
from backend.traits import COUNT, NAMES, measured
from benchmarks.style_traits import as_json, table


def test_the_shipped_file_reads_and_writes_the_same() -> None:
    shipped = files("backend").joinpath("data/traits.json").read_text("utf-8")
    assert as_json(json.loads(shipped)) == shipped


def test_centre_unit_and_means_of_a_few_texts() -> None:
    """Two prompts, four answers in each style: one word more in every style than in the last."""
    texts = {
        style.name: [" ".join(["rain"] * (nth + 1 + 5 * (answer > 3))) for answer in range(8)]
        for nth, style in enumerate(load_styles())
    }
    made = json.loads(as_json(table(texts)))
    plain = np.mean([measured(text) for text in texts["as it comes"]], axis=0)
    assert list(made["centre"].values()) == pytest.approx(plain.tolist(), abs=1e-4)
    lengths = [means["length"] for means in made["styles"].values()]
    assert lengths == sorted(lengths)
    assert lengths[0] == pytest.approx(0, abs=1e-3)
    assert all(list(means) == list(NAMES) for means in made["styles"].values())
    assert len(made["unit"]) == COUNT
    assert made["unit"]["says sure"] == 1e-3, "never said: no text may be divided by nothing"
