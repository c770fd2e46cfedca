"""The result file of `benchmarks.gate`, its summary, and its section in docs/RESULTS.md."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gate_candidates import CLASSES
from benchmarks.sections import put_between
from trainer.config import GateConfig
from trainer.gate import GateFigures, HeldOutPair, RoundPair, TextFigures, judge

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "gate.json"
DOCUMENT = ROOT / "docs" / "RESULTS.md"
# Really bad is what is worse than the sound candidate by so much, on what the gate does not see.
YARDSTICK = {
    "nll_rise_nats": 0.5,
    "repetition_rise": 0.25,
    "length_ratio": 0.4,
    "end_logp_drop_nats": 2.5,
    "loss_rise_nats": 0.1,
    "accuracy_drop": 0.15,
}


def summarize(known: Mapping[str, Mapping[str, Any]], bounds: GateConfig) -> dict[str, Any]:
    """The last line: how many were refused and accepted by `bounds`, over all and by class."""
    verdicts = {name: bool(judge(_figures(r["figures"]), bounds)) for name, r in known.items()}
    counted = {n: r for n, r in known.items() if r["kind"] != "good" and r["yardstick"]["bad"]}
    accepted = {n: not verdicts[n] for n, r in known.items() if r["kind"] == "good"}
    kept = {name for name in known if set_aside(name)}
    seconds = [r["s"] for r in known.values() if r["figures"]["texts"]]
    return {
        "bad": len(counted),
        "bad_refused": sum(verdicts[n] for n in counted),
        "bad_left_out": sum(r["kind"] != "good" for r in known.values()) - len(counted),
        "good": len(accepted),
        "good_accepted": sum(accepted.values()),
        "by_class": {
            kind: {
                "bad": sum(r["kind"] == kind for r in counted.values()),
                "refused": sum(verdicts[n] for n, r in counted.items() if r["kind"] == kind),
                "left_out": sum(r["kind"] == kind for r in known.values())
                - sum(r["kind"] == kind for r in counted.values()),
            }
            for kind in CLASSES
        },
        "set_aside": {
            "bad": len(kept & counted.keys()),
            "bad_refused": sum(verdicts[n] for n in kept & counted.keys()),
            "good": len(kept & accepted.keys()),
            "good_accepted": sum(accepted[n] for n in kept & accepted.keys()),
        },
        "s_per_candidate": round(sum(seconds) / len(seconds), 1) if seconds else None,
    }


def set_aside(name: str) -> bool:
    """Whether a candidate is one to report on, not to set bounds by; each half has every class."""
    return bool(zlib.crc32(name.encode()) % 2)


def _figures(stored: Mapping[str, Any]) -> GateFigures:
    """The record that `asdict` and JSON made of one."""
    base = stored["base_texts"]
    return GateFigures(
        nonfinite=tuple(stored["nonfinite"]),
        altered=tuple(stored["altered"]),
        held_out=tuple(HeldOutPair(**pair) for pair in stored["held_out"]),
        oldest_user=stored["oldest_user"],
        round_pairs=tuple(RoundPair(**pair) for pair in stored["round_pairs"]),
        end_logp_change=stored["end_logp_change"],
        base_texts=None if base is None else TextFigures(**base),
        texts={writer: TextFigures(**figures) for writer, figures in stored["texts"].items()},
        drift_nats=stored["drift_nats"],
    )


def read_records(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    candidates: dict[str, Any] = _decoded(json.loads(path.read_text())["candidates"])
    return candidates


def write_records(path: Path, known: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {"yardstick": YARDSTICK, "candidates": _encoded(known)}
    partial.write_text(json.dumps(content, allow_nan=False) + "\n")
    partial.replace(path)


def _encoded(data: Any) -> Any:
    """Rounded, and numbers JSON has no word for as text."""
    if isinstance(data, float):
        return round(data, 5) if math.isfinite(data) else str(data)
    if isinstance(data, Mapping):
        return {key: _encoded(value) for key, value in data.items()}
    return [_encoded(value) for value in data] if isinstance(data, list | tuple) else data


def _decoded(data: Any) -> Any:
    if data in ("nan", "inf", "-inf"):
        return float(data)
    if isinstance(data, dict):
        return {key: _decoded(value) for key, value in data.items()}
    return [_decoded(value) for value in data] if isinstance(data, list) else data


def document(summary: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Renew the section between the marks in docs/RESULTS.md."""
    rows = [
        f"| {kind} | {c['bad']} | {c['refused']} | {c['left_out']} |"
        for kind, c in summary["by_class"].items()
    ]
    missed = [
        f"- accepted though bad: {name}, {r['how']} at {r['strength']} ({r['kind']})"
        for name, r in known.items()
        if r["kind"] != "good"
        and r["yardstick"]["bad"]
        and not judge(_figures(r["figures"]), GateConfig())
    ]
    missed += [
        f"- refused though good: {name}, {r['how']}: {'; '.join(reasons)}"
        for name, r in known.items()
        if r["kind"] == "good" and (reasons := judge(_figures(r["figures"]), GateConfig()))
    ]
    apart = summary["set_aside"]
    lines = [
        "## The gate: `make bench-gate`",
        "",
        f"{summary['bad_refused']} of {summary['bad']} bad candidates refused, "
        f"{summary['good_accepted']} of {summary['good']} good ones accepted, "
        f"{summary['s_per_candidate']} s for one.",
        f"Of the half set aside, by which no bound was set: {apart['bad_refused']} of "
        f"{apart['bad']} and {apart['good_accepted']} of {apart['good']}.",
        "Left out, because other prompts and pairs do not show them to be worse than the sound "
        f"version they were made from: {summary['bad_left_out']}.",
        "",
        "| class of damage | bad | refused | left out |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        *(missed or ["No verdict was wrong."]),
    ]
    put_between(DOCUMENT, "gate", "\n".join(lines))
