"""The lab's tables: figures readable, names literal, simulated users labelled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from backend.confidence import Tally
from backend.evidence import Figure
from backend.insights import Consistency, GateView, LabSnapshot, RoundRow, UserRow, VersionRow
from ui import tables

AT = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
ROUND = RoundRow(
    id=7,
    kind="vector",
    status="promoted",
    started_at=AT,
    seconds=41.6,
    new_pairs=10,
    replay_pairs=3,
    held_out_pairs=1,
    loss_before=0.69314,
    loss_after=0.31,
    accuracy_last=0.8125,
    reason="",
    progress="",
)
USER = UserRow(
    id=1,
    username="a|b <i>${7*7}",
    role="annotator",
    simulated=False,
    guest=False,
    choices=12,
    consumed=10,
    last_choice_at=None,
    steady=Consistency(Figure(Tally(0, 0, 0)), 0),
)


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[row + 2].split("|")[1:-1]]


def test_a_round() -> None:
    shown = cells(tables.rounds([ROUND]), 0)
    assert shown[:3] == ["7", "vector", "promoted"]
    assert shown[3] == "04 Mar 05&#58;06"
    assert shown[4] == "10 &#43; 3"
    assert shown[5] == "0&#46;6931 &#8594; 0&#46;31"
    assert shown[6:8] == ["81&#37;", "42"]


def test_a_round_that_failed_says_why() -> None:
    failed = replace(ROUND, status="failed", loss_before=None, loss_after=None, reason="it | broke")
    shown = cells(tables.rounds([failed]), 0)
    assert shown[5] == "&#8211;"
    assert shown[8] == "it &#124; broke"


def test_a_name_cannot_leave_its_cell() -> None:
    shown = cells(tables.users([USER]), 0)
    assert len(shown) == 6
    assert not set("<>|$`") & set(shown[0])


def test_repeats_are_a_share_from_ten_on() -> None:
    def told(same: int, other: int) -> str:
        return tables.steadiness(Consistency(Figure(Tally(same, 0, other)), 0))

    assert told(0, 0) == "–"
    assert told(5, 4) == "5 of 9"
    ends = Figure(Tally(9, 0, 3)).interval
    assert told(9, 3) == f"9 of 12: 75% ({100 * ends.low:.0f}% to {100 * ends.high:.0f}%)"


def test_simulated_users_and_guests_are_labelled() -> None:
    rows = [replace(USER, simulated=True, guest=True), replace(USER, guest=True), USER]
    table = tables.users(rows)
    assert [cells(table, n)[1] for n in range(3)] == ["simulated", "guest", "annotator"]


def test_versions() -> None:
    live = VersionRow(id=3, round_id=2, created_at=AT, live=True, damaged=False, responses=5)
    table = tables.versions([live, replace(live, live=False, damaged=True, round_id=None)])
    assert [cells(table, n)[1] for n in range(2)] == ["live", "damaged"]
    assert cells(table, 1)[3] == "&#8211;"


def test_times_are_utc() -> None:
    there = AT.astimezone(timezone(timedelta(hours=9)))
    assert tables.moment(there) == "04 Mar 05:06"


def test_the_summary_counts_the_simulated() -> None:
    users = (USER, replace(USER, simulated=True, choices=1))
    snapshot = LabSnapshot(live_version=3, rounds=(ROUND,), versions=(), users=users)
    line = tables.summary(snapshot)
    assert "version 3 is live" in line
    assert "13 choices&#44; 1 simulated" in line
    assert "2 users&#44; 1 of them simulated" in line


def test_the_gates_word() -> None:
    passed = GateView(passed=True, reasons=(), figures={"loss": 0.5}, samples=())
    refused = replace(passed, passed=False, reasons=("worse by *0.2*", "garbage"))
    assert tables.verdict(None, None) == tables.rounds([]) == "No round has run yet."
    assert tables.verdict(None, replace(ROUND, reason="died")) == "**Not judged.** died"
    assert tables.verdict(passed, ROUND) == "**Passed.** 1 held-out pair."
    assert tables.verdict(refused, ROUND).count("\n- ") == 2
    assert "*0.2*" not in tables.verdict(refused, ROUND)


def test_gate_figures_and_samples() -> None:
    assert cells(tables.gate_figures({"held_out_loss": 0.61}), 0) == ["held out loss", "0&#46;61"]
    assert tables.gate_figures({}) == ""
    text = tables.samples(({"user_id": None, "prompt": "p", "text": "<b>\nx"},), ())
    assert text.startswith("**Base model:** p")
    assert "<" not in text
    assert len(text.splitlines()) == 3


def test_samples_name_their_users_and_label_the_simulated() -> None:
    texts = [{"user_id": number, "prompt": "p", "text": "x"} for number in (1, 2, 3)]
    users = (USER, replace(USER, id=2, username="mia", simulated=True))
    lines = tables.samples(texts, users).splitlines()[::4]
    assert "<" not in lines[0]
    assert lines[1].startswith("**mia &#40;simulated&#41;:** p")
    assert lines[2].startswith("**User 3:** p")
