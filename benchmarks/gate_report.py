"""The result file of `benchmarks.gate`, its summary, and its section in docs/RESULTS.md."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.gate_damage import CLASSES
from benchmarks.gate_yardstick import BOUNDS
from benchmarks.sections import put_between
from trainer.config import GateConfig
from trainer.gate import (
    GateFigures,
    HeldOutPair,
    RoundPair,
    end_changes,
    judge,
)
from trainer.gate_texts import TextFigures, chance_nats

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "gate.json"
DOCUMENT = ROOT / "docs" / "RESULTS.md"
FRESH = "fresh-"


def summarize(known: Mapping[str, Mapping[str, Any]], bounds: GateConfig) -> dict[str, Any]:
    """The last line: how many were refused and accepted by `bounds`, over all and by class."""
    verdicts = {name: bool(judge(_figures(r["figures"]), bounds)) for name, r in known.items()}
    counted = {n: r for n, r in known.items() if r["kind"] != "good" and r["yardstick"]["bad"]}
    accepted = {n: not verdicts[n] for n, r in known.items() if r["kind"] == "good"}
    fresh = {name for name in known if is_fresh(name)}
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
        "fresh": {
            "bad": len(fresh & counted.keys()),
            "bad_refused": sum(verdicts[n] for n in fresh & counted.keys()),
            "good": len(fresh & accepted.keys()),
            "good_accepted": sum(accepted[n] for n in fresh & accepted.keys()),
        },
        "by_others_alone": sum(bool(r["figures"]["altered"]) for r in counted.values()),
        "dtypes": dict(sorted(Counter(r["dtype"] for r in known.values()).items())),
        "machines": sorted({r["machine"] for r in known.values()}),
        "until": max((r["day"] for r in known.values()), default=None),
        "s_per_candidate": round(sum(seconds) / len(seconds), 1) if seconds else None,
    }


def is_fresh(name: str) -> bool:
    """Whether a candidate comes from rounds that no bound was set by."""
    return name.startswith(FRESH)


def _figures(stored: Mapping[str, Any]) -> GateFigures:
    """The record that `asdict` and JSON made of one."""
    base = stored["base_texts"]
    return GateFigures(
        nonfinite=tuple(stored["nonfinite"]),
        altered=tuple(stored["altered"]),
        held_out=tuple(HeldOutPair(**pair) for pair in stored["held_out"]),
        oldest_user=stored["oldest_user"],
        round_pairs=tuple(RoundPair(**pair) for pair in stored["round_pairs"]),
        base_texts=None if base is None else TextFigures(**base),
        texts=_texts(stored["texts"]),
        more_texts=_texts(stored["more_texts"]),
        parent_texts=_texts(stored["parent_texts"]),
        drift_nats=stored["drift_nats"],
    )


def _texts(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, TextFigures]:
    return {writer: TextFigures(**figures) for writer, figures in stored.items()}


def read_records(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    candidates: dict[str, Any] = _decoded(json.loads(path.read_text())["candidates"])
    return candidates


def write_records(path: Path, known: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {"yardstick": BOUNDS, "candidates": _encoded(known)}
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


def document(summary: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> None:
    """Renew the section between the marks in `path`."""
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
    good = [_figures(r["figures"]) for r in known.values() if r["kind"] == "good"]
    fresh = summary["fresh"]
    dtypes = ", ".join(f"{count} in {dtype}" for dtype, count in summary["dtypes"].items())
    lines = [
        "## The gate: `make bench-gate`",
        "",
        f"Until {summary['until']}, {', '.join(summary['machines'])}.",
        "",
        f"{summary['bad_refused']} of {summary['bad']} bad candidates refused, "
        f"{summary['good_accepted']} of {summary['good']} good ones accepted, "
        f"{summary['s_per_candidate']} s for one. Candidates: {dtypes}.",
        f"Of those from six rounds that no bound was set by: {fresh['bad_refused']} of "
        f"{fresh['bad']} and {fresh['good_accepted']} of {fresh['good']}.",
        f"Of {summary['by_others_alone']} bad ones the gate sees at once that somebody who did not "
        "take part was changed, and looks no further. All are of the individual user model.",
        "Left out, because other prompts and pairs do not show them to be worse than the sound "
        f"version they were made from: {summary['bad_left_out']}.",
        "",
        "| class of damage | bad | refused | left out |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        *(missed or ["No verdict was wrong."]),
        "",
        "How near the good ones come to the bounds:",
        "",
        "| figure | farthest of all good ones | bound |",
        "| --- | --- | --- |",
        *_margins(good, GateConfig()),
    ]
    put_between(path, "gate", "\n".join(lines))


def _margins(good: Sequence[GateFigures], bounds: GateConfig) -> list[str]:
    """A table's rows: each figure that has one bound for all, where it is farthest out."""
    texts = [(f.base_texts, t) for f in good if f.base_texts for t in f.texts.values()]
    ends = [
        -change
        for f in good
        for change in _by_user((p.user_id, p.end_logp_change) for p in f.held_out)
    ]
    pairs = [f.round_pairs for f in good]
    own = [r for some in pairs for r in _by_user((p.user_id, p.over_unlearnt_nats) for p in some)]
    risen = [r for some in pairs for r in _by_user((p.user_id, p.over_parent_nats) for p in some)]
    learnt_ends = [end_changes(some) for some in pairs]
    unlikely = [t.nll_nats - base.nll_nats for base, t in texts]
    chance = chance_nats(bounds.probe_prompts, bounds.probe_prompts, bounds)
    farthest: dict[str, tuple[Sequence[float], float | str]] = {
        "own vector over none, nats": (own, bounds.max_own_over_unlearnt_nats),
        "own vector over the parent's, nats": (risen, bounds.max_own_over_parent_nats),
        "chosen responses' drop, nats a token": (
            [-mean([p.chosen_logp_change for p in f.round_pairs]) for f in good],
            bounds.max_chosen_logp_drop_nats,
        ),
        "end of turn's drop by what was learnt, nats": (
            [-mean(changes) for changes in learnt_ends if changes],
            bounds.max_end_logp_drop_nats,
        ),
        "end of turn's drop from the parent, nats": (ends, bounds.max_end_logp_drop_nats),
        "texts' unlikeliness over the base's, nats a token": (
            unlikely,
            f"{bounds.max_nll_rise_nats} and chance, {chance:.2f}",
        ),
        "the same, from where on the parent writes too": (
            unlikely,
            f"{bounds.doubtful_nll_rise_nats} and chance",
        ),
        "base texts' drop, nats a token": (
            [drift for f in good for drift in f.drift_nats.values()],
            bounds.max_drift_nats,
        ),
        "repeated 4-grams": ([t.repetition for _, t in texts], bounds.max_repetition),
        "length over the base's": (
            [t.mean_tokens / base.mean_tokens for base, t in texts],
            bounds.max_length_ratio,
        ),
    }
    rows = [
        f"| {name} | {max(values):.2f} | {bound} |"
        for name, (values, bound) in farthest.items()
        if values
    ]
    shortest = min(t.mean_tokens / base.mean_tokens for base, t in texts)
    return [*rows, f"| the same, shortest | {shortest:.2f} | {bounds.min_length_ratio} |"]


def _by_user(figures: Iterable[tuple[int, float | None]]) -> list[float]:
    """Each user's mean of what is known."""
    by_user: dict[int, list[float]] = {}
    for user, value in figures:
        if value is not None:
            by_user.setdefault(user, []).append(value)
    return [mean(values) for values in by_user.values()]
