"""Result files of the learning benchmark → goals, table, plots and samples in RESULTS.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from backend.confidence import Tally, interval

Trials = Sequence[dict[str, Any]]
_COLLAPSED_REPETITION = 0.5
_COLLAPSED_NATS = 2.0  # per token above the base model's own mean
_COLLAPSED = (
    "A collapsed text is empty, repeats more than half of its 4-grams, or is more than "
    f"{_COLLAPSED_NATS:.0f} nats per token less likely than the base model's own are in the mean; "
    "counted at the last checkpoint. `collapsed_texts`: of what users are served, of each the best "
    "of {drafts} drafts, where those that repeat themselves were passed over. "
    "`collapsed_texts_one_draft`: of the first draft of each, whatever it is. "
    "`collapsed_texts_of_base`: of the base model's, one a prompt."
)
_SAMPLES = 10


def goals(trials: Trials) -> dict[str, float | None]:
    """The figures the project promises, means over personas and seeds; None where not measured."""
    found: dict[str, float | None] = {}
    for at in (20, 40):
        found[f"winrate_personal_vs_generic_at_{at}"] = _rate(trials, at, "vs generic")
        found[f"winrate_personal_vs_pooled_at_{at}"] = _rate(trials, at, "vs pooled")
        found[f"winrate_vs_base_at_{at}"] = _rate(trials, at, "vs base")
        found[f"winrate_pooled_vs_base_at_{at}"] = _rate(trials, at, "pooled vs base")
        found[f"winrate_own_adapter_vs_base_at_{at}"] = _rate(trials, at, "own vs base")
        found[f"winrate_one_draft_vs_generic_at_{at}"] = _rate(trials, at, "one draft vs generic")
        found[f"winrate_styles_alone_vs_generic_at_{at}"] = _rate(trials, at, "styles vs generic")
        found[f"wrong_user_drop_at_{at}"] = _wrong_user_drop(trials, at)
        for name in ("personal", "generic", "pooled", "wrong", "own"):
            found[f"prequential_{name}_at_{at}"] = prequential(trials, name, at - 10, at)[0]
        margins = prequential(trials, "personal", at - 10, at, by_margin=True)
        found[f"prequential_personal_by_margin_at_{at}"] = margins[0]
    last = [max(trial["judged"], key=int) for trial in trials]
    found |= _health([trial["judged"][at] for trial, at in zip(trials, last, strict=True)])
    found["oldest_user_drop_after_20_rounds"] = _forgotten(trials)
    found["minutes_to_20_choices_effect"] = _minutes(trials, 20)
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def prequential(
    trials: Trials, name: str, after: int, until: int, *, by_margin: bool = False
) -> tuple[float | None, float, float, int]:
    """Share of choices number `after` < n ≤ `until` foreseen by a method, interval and count.

    A forecast of exactly 0 counts half.

    Args:
        by_margin: by what the model finds likely alone, not by what earlier choices said.
    """
    margins = [
        choice[name] if by_margin else _forecast(choice, name)
        for trial in trials
        for choice in trial["choices"]
        if after < choice["nth"] <= until and name in choice
    ]
    if not margins:
        return None, 0.0, 1.0, 0
    hits = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    bounds = interval(Tally(hits.count(1.0), hits.count(0.5), hits.count(0.0)))
    return mean(hits), bounds.low, bounds.high, len(hits)


def _forecast(choice: dict[str, Any], name: str) -> float:
    """What a method expected, above 0 if it was right: by earlier choices, else by its margin."""
    said: float = choice.get(f"{name}_taste") or choice[name]
    return said


def report(trials: Trials, title: str, command: str, figures: Path, name: str) -> str:
    """The section for RESULTS.md; its plots are written to `figures`."""
    lines = [f"### {title}", "", f"`{command}` on: {trials[0]['machine']}.", ""]
    lines += [f"{_setting(trials)}", ""]
    lines += ["| figure | value |", "|---|---|"]
    lines += [f"| `{key}` | {value} |" for key, value in goals(trials).items() if value is not None]
    lines += ["", _COLLAPSED.format(drafts=trials[0]["plan"]["drafts"]), ""]
    lines += [*_per_persona(trials), ""]
    for kind, draw in (("prequential", _plot_prequential), ("winrates", _plot_winrates)):
        file = figures / f"learning-{name}-{kind}.png"
        draw(trials, file)
        lines += [f"![{kind}](figures/{file.name})", ""]
    lines += _samples(trials[0])
    return "\n".join(lines)


def _setting(trials: Trials) -> str:
    plan = trials[0]["plan"]
    seeds = ", ".join(str(trial["plan"]["seed"]) for trial in trials)
    minutes = mean(trial["seconds"] for trial in trials) / 60
    return (
        f"Personas: {', '.join(plan['rules'])}. {plan['rounds']} rounds of {plan['per_round']} "
        f"choices each, seeds {seeds}, {trials[0]['held_out']} held-out prompts, responses of at "
        f"most {trials[0]['new_tokens']} tokens; {minutes:.1f} minutes a trial. Ties (no "
        f"preference, no pair): {sum(trial['ties'] for trial in trials)}."
    )


def _rates(trials: Trials, at: int) -> list[tuple[str, dict[str, float]]]:
    return [
        (rule, rates)
        for trial in trials
        for rule, rates in trial["judged"].get(str(at), {}).get("winrates", {}).items()
    ]


def _rate(trials: Trials, at: int, name: str) -> float | None:
    values = [rates[name] for _, rates in _rates(trials, at) if name in rates]
    return mean(values) if values else None


def _wrong_user_drop(trials: Trials, at: int) -> float | None:
    drops = [
        rates["vs generic"] - mean(v for name, v in rates.items() if name.startswith("wrong"))
        for _, rates in _rates(trials, at)
    ]
    return mean(drops) if drops else None


def _health(judged: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    drops: list[float] = []
    repetition: list[float] = []
    for one in judged:
        base = one["health"]["base"]
        for figures in _of_writers(one, "user "):
            drops.append(figures["nll_nats"] - base["nll_nats"])
            repetition.append((1 - figures["repetition"]) / (1 - base["repetition"]))
    return {
        "logprob_per_token_drop": mean(drops),
        "distinct_4grams_vs_base": mean(repetition),
        "collapsed_texts": _collapsed_of(judged, "user "),
        "collapsed_texts_one_draft": _collapsed_of(judged, "one draft user "),
        "collapsed_texts_of_base": _collapsed_of(judged, "base"),
    }


def _of_writers(one: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The health of all writers whose names begin so."""
    return [figures for writer, figures in one["health"].items() if writer.startswith(kind)]


def _collapsed_of(judged: Sequence[dict[str, Any]], kind: str) -> float | None:
    """Of all texts of writers whose names begin so; None where there are no such writers."""
    counts = [
        _collapsed(figures, one["health"]["base"])
        for one in judged
        for figures in _of_writers(one, kind)
    ]
    return float(sum(counts)) if counts else None


def _collapsed(figures: dict[str, Any], base: dict[str, Any]) -> int:
    """Texts that are empty, loop, or are far less likely than the base model's; or all of them."""
    unlikely = base["nll_nats"] + _COLLAPSED_NATS
    texts = figures["empty"] + figures["loops"] + sum(n > unlikely for n in figures["nll_each"])
    return int(texts + (figures["repetition"] > _COLLAPSED_REPETITION))


def _forgotten(trials: Trials) -> float | None:
    rates = [trial["oldest_user"] for trial in trials if trial.get("oldest_user")]
    drops = [rate["before"] - rate["after"] for rate in rates]
    return mean(drops) if drops else None


def _minutes(trials: Trials, choices: int) -> float | None:
    minutes: list[float] = []
    for trial in trials:
        rounds = choices // trial["plan"]["per_round"]
        minutes.append(sum(trial["train_s"]["personal"][:rounds]) / 60)
    return mean(minutes)


def _per_persona(trials: Trials) -> list[str]:
    at = max(int(key) for key in trials[0]["judged"])
    names = ["vs generic", "one draft vs generic", "vs pooled", "vs base"]
    lines = [
        f"Win-rate of each persona's own texts after {at} choices, by its rule, ties half. "
        "`choices`: decided ones, mean over seeds. `wrong`: the others' texts against generic. "
        "`repeats`: share of repeated 4-grams over all texts of one writer.",
        "",
        "| persona | "
        + " | ".join(names)
        + " | wrong | choices | tokens | nats per token | repeats |",
        "|---|" + "---|" * (len(names) + 5),
    ]
    for number, rule in enumerate(trials[0]["plan"]["rules"], 1):
        some = [trial["judged"][str(at)] for trial in trials]
        rates = [one["winrates"][rule] for one in some]
        health = [one["health"][f"user {number}"] for one in some]
        cells = [f"{mean(rate[name] for rate in rates):.2f}" for name in names]
        wrong = mean(v for rate in rates for k, v in rate.items() if k.startswith("wrong"))
        decided = [sum(c["user"] == number for c in trial["choices"]) for trial in trials]
        cells += [f"{wrong:.2f}", f"{mean(decided):.0f}", *_health_cells(health)]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    for writer in ("generic", "pooled", "base"):
        health = [trial["judged"][str(at)]["health"][writer] for trial in trials]
        empty = " | ".join([" "] * (len(names) + 2))
        lines.append(f"| ({writer}) | {empty} | " + " | ".join(_health_cells(health)) + " |")
    return lines


def _health_cells(health: Sequence[dict[str, Any]]) -> list[str]:
    written = (("mean_tokens", ".0f"), ("nll_nats", ".2f"), ("repetition", ".2f"))
    return [format(mean(one[key] for one in health), form) for key, form in written]


def _plot_prequential(trials: Trials, file: Path) -> None:
    step = trials[0]["plan"]["per_round"]
    last = step * trials[0]["plan"]["rounds"]
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    for name, label in (
        ("personal", "personal"),
        ("generic", "generic (e₀ of P-DPO)"),
        ("pooled", "pooled DPO"),
        ("wrong", "another user's vector"),
        ("own", "own adapter"),
    ):
        points = [
            (until, prequential(trials, name, until - step, until)[0])
            for until in range(step, last + 1, step)
        ]
        known = [(x, y) for x, y in points if y is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker="o", label=label)
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="choices per persona", ylabel="choices foreseen", ylim=(0, 1))
    _save(figure, axes, file)


def _plot_winrates(trials: Trials, file: Path) -> None:
    rules = trials[0]["plan"]["rules"]
    checkpoints = sorted(trials[0]["judged"], key=int)
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    width = 0.8 / len(checkpoints)
    for index, at in enumerate(checkpoints):
        heights = [
            mean(t["judged"][at]["winrates"][r]["vs generic"] for t in trials) for r in rules
        ]
        places = [place + index * width for place in range(len(rules))]
        axes.bar(places, heights, width, label=f"after {at} choices")
    axes.set_xticks(range(len(rules)), rules, rotation=20)
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set(ylabel="won against generic", ylim=(0, 1))
    _save(figure, axes, file)


def _save(figure: Any, axes: Any, file: Path) -> None:
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def _samples(trial: dict[str, Any]) -> list[str]:
    """The first held-out prompts, whatever came out."""
    at = max(trial["judged"], key=int)
    texts = trial["judged"][at]["texts"]
    lines = [f"Unpicked samples (the first held-out prompts, after {at} choices):", ""]
    for number, rule in enumerate(trial["plan"]["rules"], 1):
        lines += [f"<details><summary>{rule}</summary>", ""]
        rows = zip(
            trial["questions"][:_SAMPLES],
            texts["generic"],
            texts[f"user {number}"],
            strict=False,
        )
        lines += ["| prompt | generic | personal |", "|---|---|---|"]
        lines += [f"| {_cell(a)} | {_cell(b)} | {_cell(c)} |" for a, b, c in rows]
        lines += ["", "</details>", ""]
    return lines


def _cell(text: str) -> str:
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", "<br>")


def read_trials(folder: Path, name: str) -> list[dict[str, Any]]:
    """Every result file of one size, by seed."""
    files = sorted(folder.glob(f"learning-{name}-*.json"))
    load: Callable[[str], dict[str, Any]] = json.loads
    return [load(file.read_text("utf-8")) for file in files]
