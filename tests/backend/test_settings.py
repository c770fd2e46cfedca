"""Settings: defaults, refusals, and every one documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import ConfigurationError
from backend.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent.parent


def test_defaults_need_no_environment() -> None:
    settings = load_settings({})
    assert settings.model == "embedded"
    assert settings.resolved_database_url.startswith("sqlite:////")


def test_values_are_read_and_typed() -> None:
    settings = load_settings({"ATTUNE_PORT": "8000", "ATTUNE_GUESTS": "false", "PATH": "x"})
    assert settings.port == 8000
    assert settings.guests is False


def test_a_home_folder_is_found_wherever_a_folder_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings({"ATTUNE_DATA_DIR": "~/data"})
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/data/attune.db"
    assert settings.directions_dir == tmp_path / ".cache" / "attune" / "directions"


def test_the_styled_user_model_has_styles_to_learn_from_unless_told_otherwise() -> None:
    assert load_settings({}).resolved_varied_share == 0
    styled = {"ATTUNE_USER_MODEL": "styled"}
    assert load_settings(styled).resolved_varied_share == 0.6
    assert load_settings(styled | {"ATTUNE_VARIED_SHARE": "0"}).resolved_varied_share == 0
    assert load_settings({"ATTUNE_VARIED_SHARE": "0.3"}).resolved_varied_share == 0.3


def test_drafts_can_be_turned_off() -> None:
    assert load_settings({}).drafts > 1
    assert load_settings({"ATTUNE_DRAFTS": "1"}).drafts == 1


def test_a_prompts_ending_is_one_line_in_any_language() -> None:
    assert load_settings({}).prompt_ending == ""
    for words in (" Be brief. ", "二、三文で答えてください。", "کوتاه می\u200cنویسم."):
        assert load_settings({"ATTUNE_PROMPT_ENDING": words}).prompt_ending == words.strip()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ATTUNE_DRAFTS": "0"}, "ATTUNE_DRAFTS='0'"),
        ({"ATTUNE_PROMPT_ENDING": "Be\nbrief."}, "a prompt's ending is one line of text"),
        ({"ATTUNE_PROMPT_ENDING": "Be\u2028brief."}, "a prompt's ending is one line of text"),
        ({"ATTUNE_PROMPT_ENDING": "a" * 201}, "should have at most 200 characters"),
        ({"ATTUNE_PROT": "1"}, "unknown setting ATTUNE_PROT; did you mean ATTUNE_PORT?"),
        ({"ATTUNE_PORT": "many"}, "ATTUNE_PORT='many'"),
        ({"ATTUNE_SIGNUP": "maybe"}, "ATTUNE_SIGNUP='maybe'"),
        ({"ATTUNE_PREFETCH": "-1"}, "ATTUNE_PREFETCH='-1'"),
        ({"ATTUNE_TICK_S": "inf"}, "ATTUNE_TICK_S='inf'"),
        ({"ATTUNE_ROUND_MAX_WAIT_S": "1e15"}, "ATTUNE_ROUND_MAX_WAIT_S='1e15'"),
        ({"ATTUNE_ROUND_TIMEOUT_S": "nan"}, "ATTUNE_ROUND_TIMEOUT_S='nan'"),
        ({"ATTUNE_LEARNING_RATE_ADAPTER": "inf"}, "ATTUNE_LEARNING_RATE_ADAPTER='inf'"),
        ({"ATTUNE_PERSONAS": "5"}, "ATTUNE_PERSONAS='5': Personas come in opposed pairs"),
        ({"ATTUNE_PERSONAS": "warm,sobr"}, "did you mean sober?"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_is_recognised_by_its_own_variables() -> None:
    settings = load_settings(
        {
            "SPACE_HOST": "me-attune.hf.space",
            "OAUTH_CLIENT_ID": "id",
            "OAUTH_CLIENT_SECRET": "secret",
        }
    )
    assert settings.embed
    assert settings.host == "0.0.0.0"
    assert settings.public_url == "https://me-attune.hf.space"
    assert settings.hf_client_id == "id"
    assert "secret" not in repr(settings)


def test_what_is_set_wins_over_the_space() -> None:
    settings = load_settings({"SPACE_HOST": "x.hf.space", "ATTUNE_HOST": "127.0.0.1"})
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    variable = f"`ATTUNE_{name.upper()}`"
    field = Settings.model_fields[name]
    assert field.description
    line = next((x for x in (ROOT / "OPERATIONS.md").read_text().splitlines() if variable in x), "")
    assert field.description in line
