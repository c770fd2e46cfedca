"""The benchmark of serving beside training: how pairs are asked for and made into a round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.engines.base import Engine, VersionRef
from backend.engines.echo import EchoEngine, write_version
from benchmarks.engine_world import USERS
from benchmarks.together import preference_pairs, serve


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    write_version(tmp_path / "version", flavour=1, users=USERS)
    engine = EchoEngine(word_delay_s=0.0)
    engine.swap(VersionRef(1, tmp_path / "version"))
    yield engine
    engine.close()


def test_pairs_are_asked_for_until_it_is_enough(engine: Engine) -> None:
    served = serve(engine, 8, lambda served: len(served.pairs_s) == 3)
    assert len(served.pairs_s) == 3
    assert all(gap >= 0 for gap in served.gaps_s)


def test_a_rounds_pairs_are_the_users_in_turn(engine: Engine) -> None:
    pairs = preference_pairs(engine, len(USERS) + 1, 8)
    assert [pair.user_id for pair in pairs] == [*USERS, USERS[0]]
    ids = [r.response_id for pair in pairs for r in (pair.chosen, pair.rejected)]
    assert len(set(ids)) == 2 * len(pairs)
    assert all(pair.chosen.token_ids for pair in pairs)
