"""The download: everything of one user, nothing of others, nothing that unblinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend import my_data
from backend.errors import NotFound
from backend.my_data import MyData
from backend.vector_files import OwnVector, VectorFiles
from db.models import Comparison, UnwantedPrompt, User, WebSession
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def download(judged: Judged, user: int, vector: OwnVector | None = None) -> list[dict[str, Any]]:
    files = VectorFiles(judged.database, Path("nowhere"), live=lambda: None, clock=judged.clock)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "read", lambda _user: vector)
        data = MyData(judged.database, files, clock=judged.clock)
        text = "".join(data.lines(user))
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record for record in records if record["kind"] == kind]


def test_everything_is_in_it_and_nothing_of_others(judged: Judged) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    comparison = judged.comparison(
        user, version, purpose="blind", conditions=("generic", "personal")
    )
    choice = judged.choice(user, comparison, "a")
    judged.round(version, [choice])
    changed = judged.choice(user, comparison, "b", supersedes=choice)
    judged.score(choice, version, (1.0, -1.0, None))
    judged.choice(other, judged.comparison(other, version), "a")
    with judged.database.write() as session:
        row = session.get_one(User, user)
        row.profile, row.hf_subject = "Kürzer, bitte.", "hf-7"
        session.add(UnwantedPrompt(user_id=user, prompt_id=1, created_at=judged.clock()))
        session.add(
            WebSession(
                token_hash="secret",
                user_id=user,
                created_at=judged.clock(),
                expires_at=judged.clock(),
            )
        )
    records = download(judged, user, OwnVector(3, ((0.5, -1.0), (0.0, 2.0))))
    (account,) = of(records, "account")
    assert (account["name"], account["profile"]) == ("mia", "Kürzer, bitte.")
    assert len(of(records, "own_prompt")) == len(of(records, "unwanted_prompt")) == 1
    (pair,) = of(records, "comparison")
    assert [response["condition"] for response in pair["responses"]] == ["generic", "personal"]
    assert [response["drafts"] for response in pair["responses"]] == [1, 1]
    assert pair["purpose"] == "blind"
    assert [record["choice"] for record in of(records, "choice")] == [choice, changed]
    assert of(records, "choice")[0]["used_by"] == [{"round": 1, "use": "new", "ended": "promoted"}]
    assert of(records, "prequential_score")[0]["personal_nats"] == 1.0
    assert of(records, "vector") == [
        {"kind": "vector", "version": 3, "values": [[0.5, -1.0], [0.0, 2.0]]}
    ]
    assert records[-1] == {"kind": "end", "lines": len(records) - 1}
    assert "secret" not in json.dumps(records)


def test_a_pair_not_yet_judged_does_not_say_which_side_is_whose(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    judged.comparison(user, version, purpose="blind", conditions=("generic", "personal"))
    taken_back = judged.comparison(user, version)
    choice = judged.choice(user, taken_back, "a")
    judged.choice(user, taken_back, "withdrawn", supersedes=choice)
    for pair in of(download(judged, user), "comparison"):
        assert pair["answered"] is False
        assert "purpose" not in pair
        assert all(set(response) == {"side", "text"} for response in pair["responses"])


def test_what_was_handed_out_is_noted_as_blind_no_more(judged: Judged) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    answered, waiting = judged.comparison(user, version), judged.comparison(user, version)
    judged.choice(user, answered, "tie")
    others = judged.comparison(other, version)
    judged.choice(other, others, "tie")
    told = judged.clock()
    for _ in range(2):
        (first, _second) = of(download(judged, user), "comparison")
        assert first["revealed_at"] == told.isoformat()
        judged.clock.forward(hours=1)
    with judged.database.read() as session:
        revealed = {n: session.get_one(Comparison, n).revealed_at for n in (waiting, others)}
    assert revealed == {waiting: None, others: None}


def test_many_rows_come_batch_by_batch(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(my_data, "_AT_ONCE", 2)
    user, version = judged.user("mia"), judged.version()
    for nth in range(5):
        choice = judged.choice(user, judged.comparison(user, version), "a")
        judged.score(choice, version, (1.0, 1.0, None), nth=nth)
    records = download(judged, user)
    for kind in ("comparison", "choice", "prequential_score"):
        assert len(of(records, kind)) == 5
    assert of(records, "vector") == []


def test_who_reads_slowly_keeps_no_connection(judged: Judged) -> None:
    user = judged.user("mia")
    data = MyData(judged.database, None, clock=judged.clock)
    pool = judged.database.engine.pool
    before = pool.status()
    lines = data.lines(user)
    for _ in lines:
        assert pool.status() == before


def test_there_is_no_data_of_nobody(judged: Judged) -> None:
    with pytest.raises(NotFound):
        download(judged, 999)
