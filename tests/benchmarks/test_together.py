"""The benchmark of serving beside training: pairs are asked for, made into a round, and learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from backend.engines.base import Engine, VersionRef
from backend.engines.echo import EchoEngine, write_version
from benchmarks import engine_world, together_report
from benchmarks.engine_world import USERS
from benchmarks.together import Machine, made_ahead, measure, preference_pairs
from benchmarks.together import serve as serve_pairs
from benchmarks.together_report import write_report
from tests.trainer.conftest import base, tokenizer  # noqa: F401 - fixtures
from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts
from trainer.round import run_round
from trainer.types import Progress, RoundRequest, RoundResult


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    write_version(tmp_path / "version", flavour=1, users=USERS)
    engine = EchoEngine(word_delay_s=0.005)  # so that words come one by one
    engine.swap(VersionRef(1, tmp_path / "version"))
    yield engine
    engine.close()


def test_pairs_are_asked_for_until_it_is_enough(engine: Engine) -> None:
    served = serve_pairs(engine, 8, lambda served: len(served.pairs_s) == 3)
    assert len(served.pairs_s) == 3
    assert all(gap >= 0 for gap in served.gaps_s)


def test_a_rounds_pairs_are_the_users_in_turn(engine: Engine) -> None:
    pairs = preference_pairs(engine, len(USERS) + 1, 8)
    assert [pair.user_id for pair in pairs] == [*USERS, USERS[0]]
    ids = [r.response_id for pair in pairs for r in (pair.chosen, pair.rejected)]
    assert len(set(ids)) == 2 * len(pairs)
    assert all(pair.chosen.token_ids for pair in pairs)


class TrainerHere:
    """Runs rounds in this process."""

    def __init__(self, base: LanguageModel) -> None:  # noqa: F811
        self.base = base
        self.results: list[RoundResult] = []

    def run(
        self, request: RoundRequest, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> RoundResult:
        self.results.append(run_round(self.base, request, on_progress, BaseTexts()))
        return self.results[-1]


def test_all_is_measured_from_the_benchmarks_own_version(
    engine: Engine,
    base: LanguageModel,  # noqa: F811
    tmp_path: Path,
) -> None:
    engine_world.write_version(base, tmp_path / "parent")
    trainer = TrainerHere(base)
    figures, gaps_s = measure(Machine(engine, trainer, tmp_path / "parent"), 2, 8)
    assert len({result.artifact for result in trainer.results}) == 3
    assert figures["round_pairs"] == 2
    assert figures["round_slowdown"] > 0
    assert figures["pairs_during_round"] >= 1
    assert all(gaps_s.values())


def test_pairs_made_ahead_are_given_up_at_the_end(engine: Engine) -> None:
    with made_ahead(engine):
        assert engine.generate(engine_world.requests(1, 2, 4, sampled=True)).result(60)


def test_a_report_renews_its_section_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together_report, "_DOCS", tmp_path)
    (tmp_path / "RESULTS.md").write_text("# Results\n", "utf-8")
    for delay, kind in ((70.5, "float32"), (7.25, "bfloat16"), (1.5, "cuda bfloat16")):
        figures = {"token_delay_ms_p95": delay, "kind": kind, "machine": "a test", "model": "x"}
        write_report(figures, {"alone": [0.05, 0.04, 0.06]}, day=date(2026, 11, 23))
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert '"token_delay_ms_p95": 7.25' in text
    assert "70.5" not in text
    assert '"token_delay_ms_p95": 1.5' in text
    assert (tmp_path / "figures" / "together-tokens.png").stat().st_size > 1000
