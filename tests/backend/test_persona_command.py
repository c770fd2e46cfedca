"""`python -m backend.personas`: its options become settings, and `app.py` takes its place."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backend.persona_command import main
from backend.persona_rules import RULES
from dev.running import ROOT, environment


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.personas", *arguments],
        check=False,
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_and_the_list_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "--side-bias" in capsys.readouterr().out
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(RULES)
    assert lines[1].startswith("shorter ")
    assert lines[1].endswith("Opposite: longer.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "3"], "opposed pairs"),
        (["--rules", "shortr"], "did you mean shorter?"),
        (["--noise", "2"], "The noise is a probability"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_app_takes_its_place_with_the_environments_settings() -> None:
    refused = run("--count", "2", signup="maybe")
    assert refused.returncode == 2
    assert "attune: ATTUNE_SIGNUP='maybe'" in refused.stderr
    refused = run("--choices", "-1")
    assert "attune: ATTUNE_PERSONA_CHOICES='-1'" in refused.stderr
