"""The benchmark of the gate runs to its end on a random model, and goes on where it stood."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.gate import main
from benchmarks.gate_damage import CLASSES
from benchmarks.gate_report import document, read_records


def test_it_judges_every_class_and_resumes(
    tmp_path: Path, embedded_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "gate.json"
    told = ["--tiny", "--threads=1", f"--results={results}", f"--folder={tmp_path / 'kept'}"]
    told += ["--fresh-bad=1", "--fresh-good=0"]
    main([*told, "--bad=2", "--good=1"])
    first = read_records(results)
    assert set(first) == {"good-000", "bad-000", "bad-001", "fresh-bad-000"}
    summary = main([*told, "--bad=6", "--good=1", "--resume"])
    records = read_records(results)
    assert str({name: records[name] for name in first}) == str(first)  # as text: NaN is not NaN
    assert {r["kind"] for r in records.values()} == {"good", *CLASSES}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    assert summary["bad"] + summary["bad_left_out"] == 7
    assert summary["by_class"]["not finite"] == {"bad": 2, "refused": 2, "left_out": 0}
    assert summary["fresh"] == {"bad": 1, "bad_refused": 1, "good": 0, "good_accepted": 0}
    assert records["fresh-bad-000"]["from"] == "child-6"
    assert records["bad-003"]["reasons"][0].startswith("users who did not take part")
    # The figures are kept as the judge reads them: it comes to the same verdicts again.
    assert main([*told, "--judge-again"]) == summary
    page = tmp_path / "RESULTS.md"
    page.write_text("<!-- gate: begin -->\n<!-- gate: end -->\n")
    document(summary, records, page)
    written = page.read_text()
    assert "| not finite | 2 | 2 | 0 |" in written
    assert re.search(r"\| repeated 4-grams \| \d\.\d\d \| 0\.3 \|", written)
