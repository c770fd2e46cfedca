"""The styled user model through the real engine, desk, scorer and trainer process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select
from sqlalchemy.orm import Session
from transformers import AutoConfig

from backend import user_tastes
from backend.prequential import Scorer
from backend.styles import load_styles, style_shares, with_directions
from backend.user_tastes import taste_of
from db.models import Version
from tests.backend.house import CONFIG, House
from trainer.artifacts import ADAPTER_WEIGHTS, USER_VECTORS
from trainer.config import recipe_for

STYLES = with_directions(load_styles())
RECIPE = recipe_for(
    "styled",
    prefix_tokens=CONFIG.prefix_tokens,
    lora_rank=CONFIG.lora_rank,
    lora_alpha=CONFIG.lora_alpha,
    gate=CONFIG.gate,
)


@pytest.fixture
def house(make_house: Callable[..., House], model_path: Path) -> House:
    width = AutoConfig.from_pretrained(model_path, local_files_only=True).hidden_size
    noise = torch.Generator().manual_seed(3)
    directions = torch.randn(len(STYLES), CONFIG.prefix_tokens, width, generator=noise)
    return make_house(config=RECIPE, directions=0.1 * directions, min_choices=6)


def versions_of(house: House) -> list[Path]:
    """The versions' directories, oldest first."""
    with house.database.read() as session:
        names = session.scalars(select(Version.artifact).order_by(Version.id)).all()
    return [house.versions.path_of(name) for name in names]


def test_tastes_are_read_beside_the_choices_that_come_in_and_a_failure_fails_the_round(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(session: Session, *_: object) -> None:
        writes = session.connection().get_execution_options().get("attune_write", False)
        raise ValueError(f"writes: {writes}")

    house.choose(6)
    Scorer(house.database, house.engine, clock=house.clock).run()
    monkeypatch.setattr(user_tastes, "shares_for_round", look)
    done = house.round()
    assert (done.status, done.reason) == ("failed", "unexpected ValueError: writes: False")


def test_a_round_makes_a_users_choices_their_vector_and_leaves_everything_shared(
    house: House,
) -> None:
    house.choose(6)
    Scorer(house.database, house.engine, clock=house.clock).run()
    before = house.live
    assert house.round().status == "promoted"
    assert house.live == before + 1
    first, second = versions_of(house)
    old, new = (load_file(path / USER_VECTORS) for path in (first, second))
    with house.database.read() as session:
        shares = style_shares(load_styles(), taste_of(session, house.user))
    assert len(old["shares"]) == 0
    assert new["shares"].tolist() == [pytest.approx(shares)]
    assert new["shares"].sum() > 0
    assert new["offsets"].abs().sum() > 0
    for shared in ("generic", "directions"):
        assert torch.equal(old[shared], new[shared])
    old_adapter, new_adapter = (load_file(path / ADAPTER_WEIGHTS) for path in (first, second))
    assert all(torch.equal(old_adapter[name], new_adapter[name]) for name in old_adapter)
