"""`python -m backend.personas`: its options become settings, and `app.py` takes its place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.persona_command import main
from backend.persona_rules import RULES
from backend.settings import Settings, load_settings
from dev.running import ROOT, environment


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


def test_options_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Settings] = []
    monkeypatch.setenv("ATTUNE_SIGNUP", "closed")
    monkeypatch.setattr(os, "execve", lambda *given: told.append(load_settings(given[2])))
    main(["--rules", "warm,sober", "--choices", "7", "--noise", "0.25", "--side-bias", "0.5"])
    (settings,) = told
    assert (settings.personas, settings.persona_choices) == ("warm,sober", 7)
    assert (settings.persona_noise, settings.persona_side_bias) == (0.25, 0.5)
    assert settings.signup == "closed"


def test_app_takes_its_place_with_the_environments_settings() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "backend.personas", "--count", "2"],
        check=False,
        cwd=ROOT,
        env=environment(signup="maybe"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode == 2
    assert "attune: ATTUNE_SIGNUP='maybe'" in refused.stderr
