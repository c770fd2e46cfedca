"""The only reader of the environment: `ATTUNE_…` variables → one `Settings`.

An unknown `ATTUNE_…` name is an error, so that a typing mistake is never silently ignored.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from backend.errors import ConfigurationError, InvalidInput
from backend.persona_cast import DEFAULT_CHOICES, DEFAULT_NOISE, rules_from
from backend.shipped_prompts import USUAL_ENDING

_PREFIX = "ATTUNE_"
_YEAR_S = 365 * 24 * 3600  # far beyond it, the system's own timers give up
_NOT_ON_A_LINE = ("Cc", "Zl", "Zp")  # control characters and separators of lines


class Settings(BaseModel):
    """Every setting with its default; each field's description is its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    model: str = Field(
        "embedded",
        description="Base model: `embedded`, a Hugging Face Hub name, or a folder.",
    )
    model_revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N` for serving.")
    trainer_device: str = Field("auto", description="The same for the trainer process.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Weights' type; `auto` takes bfloat16 where the hardware has it."
    )
    engine: Literal["local", "echo"] = Field(
        "local", description="`local` (transformers) or `echo` (no model; for trying the pages)."
    )
    data_dir: Path = Field(Path("data"), description="Where the database and the versions live.")
    cache_dir: Path = Field(
        Path("~/.cache/attune"), description="Where the embedded model is kept once fetched."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty means SQLite in the data folder."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    public_url: str = Field(
        "", description="The address people use, when a proxy stands in front (https://…)."
    )
    signup: Literal["open", "invite", "closed"] = Field(
        "open", description="Who may make an account: everybody, holders of an invite, nobody."
    )
    introduction: bool = Field(
        True, description="Whether people see the introduction at their first sign-in."
    )
    language: str = Field(
        "en", description="Language of the pages for those whose browser asks for none there is."
    )
    languages_dir: Path | None = Field(
        None, description="A folder of further languages: one catalogue `<code>.po` for each."
    )
    consent_file: Path | None = Field(
        None,
        description="A study’s text (UTF-8, plain) that everybody agrees to before taking part.",
    )
    guests: bool = Field(True, description="Whether 'try it as a guest' is offered.")
    session_days: int = Field(30, ge=1, le=365, description="Days until a session expires.")
    embed: bool = Field(
        False,
        description="The page is shown in a cross-site frame (a Space): cookies SameSite=None.",
    )
    hf_client_id: str = Field("", description="Hugging Face OAuth client; empty turns it off.")
    hf_client_secret: str = Field("", description="Its secret.", repr=False)
    hf_provider_url: str = Field(
        "https://huggingface.co", description="The OpenID provider behind that client."
    )
    max_prompt_chars: int = Field(
        2000,
        ge=10,
        le=100_000,
        description="Longest own prompt; with the turns before it, it may have 2,048 tokens.",
    )
    prompt_ending: str = Field(
        "",
        max_length=200,
        description="A sentence put behind each prompt of the bank, for everybody to see, such as "
        f"`{USUAL_ENDING}`; empty for none.",
    )
    max_new_tokens: int = Field(160, ge=1, le=4096, description="Longest response, in tokens.")
    temperature: float = Field(0.8, ge=0, le=2, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling.")
    prefetch: int = Field(2, ge=0, le=8, description="Comparisons kept ready per active user.")
    max_batch: int = Field(
        32,
        ge=2,
        le=256,
        description="Responses generated at once that somebody waits for, and as many beside them "
        "that nobody waits for; the drafts of one response and its other side should fit in.",
    )
    blind_share: float = Field(
        0.1, ge=0, le=1, description="Share of personal-against-generic pairs; never trained on."
    )
    base_share: float = Field(
        0.1, ge=0, le=1, description="Share of pairs with a base response; against feedback loops."
    )
    shared_pairs: int = Field(
        0,
        ge=0,
        le=1000,
        description="So many of everybody's first pairs are made once, without a vector, for all.",
    )
    varied_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the other pairs whose sides are made in two styles; unless set, 0, "
        "and 0.6 with the styled user model, which learns from them.",
    )
    drafts: int = Field(
        28,
        ge=1,
        le=63,
        description="Personal responses that are compared with others are the best of so many, by "
        "what the user's choices say, where nobody watches them being written; 1 turns that off.",
    )
    repeat_share: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of pairs that show an earlier one again, sides swapped: are choices "
        "steady? Never trained on.",
    )
    reveal: bool = Field(
        False, description="Whether people are told after choosing which response was whose."
    )
    daily_goal: int = Field(
        20, ge=1, le=1000, description="Choices a day that a new user is invited to make."
    )
    trainer: bool = Field(True, description="Whether this process runs the scheduler and trainer.")
    trainer_threads: int = Field(0, ge=0, description="Trainer's CPU threads; 0 means all cores.")
    trainer_nice: int = Field(10, ge=0, le=19, description="How far training steps back (nice).")
    engine_threads: int = Field(
        0, ge=0, description="Engine's CPU threads; 0 means half the cores, as training needs some."
    )
    tick_s: float = Field(
        2.0, gt=0, le=3600, description="Seconds between looks at whether a round is due."
    )
    round_min_choices: int = Field(10, ge=1, description="New choices that make a round due.")
    round_max_wait_s: float = Field(
        1800,
        gt=0,
        le=_YEAR_S,
        description="A round is due with fewer once the oldest has waited so long.",
    )
    round_timeout_s: float = Field(
        3600, gt=0, le=_YEAR_S, description="A round that takes longer is failed."
    )
    round_max_new: int = Field(64, ge=1, description="At most so many new pairs per round.")
    round_replay: int = Field(10, ge=0, description="Older pairs trained on again per round.")
    round_user_cap: int = Field(32, ge=1, description="At most so many pairs of one user a round.")
    fast_update_choices: int = Field(
        3,
        ge=0,
        description="After so many choices a new user's vector is trained alone, before the next "
        "round; 0 turns that off.",
    )
    user_model: Literal["auto", "individual", "cluster", "styled"] = Field(
        "auto",
        description="How a user becomes a vector: one of their own, a mixture of shared ones, or "
        "styles mixed by what the user's choices say (a model's style directions are made "
        "once, with `python -m backend.direction_command`). `auto` is `styled` where the model has "
        "directions (the embedded one does), else `individual`. Fixed once there are versions.",
    )
    clusters: int = Field(
        10, ge=2, le=100, description="Shared vectors of the cluster user model. Fixed likewise."
    )
    profiles: bool = Field(
        True, description="Whether what users write about themselves goes into their prompts."
    )
    loss: Literal["sigmoid", "ipo", "robust", "hinge"] = Field(
        "sigmoid", description="Preference loss of a round: DPO, IPO, robust DPO or hinge."
    )
    label_noise: float = Field(
        0.1, ge=0, lt=0.5, description="Share of choices the robust loss takes to be mistaken."
    )
    round_epochs: int | None = Field(
        None,
        ge=1,
        le=20,
        description="Passes over a round's pairs; unset: 2, and 1 with the styled user model.",
    )
    learning_rate_vector: float | None = Field(
        None,
        gt=0,
        description="AdamW rate of the user vectors; unset: 0.002, and 0.004 with the styled one.",
    )
    learning_rate_adapter: float = Field(5e-4, gt=0, description="AdamW rate of the adapter.")
    personas: str = Field(
        "",
        description="Simulated users that choose from the start on: how many (2, 4, 6 or 8), or "
        "names of rules, separated by commas.",
    )
    persona_choices: int = Field(
        DEFAULT_CHOICES, ge=0, description="A persona stops after so many choices; 0: never."
    )
    persona_noise: float = Field(
        DEFAULT_NOISE, ge=0, le=1, description="Probability of a persona's verdict at random."
    )
    persona_side_bias: float = Field(
        0.0, ge=0, le=1, description="Probability of a persona's taking side A unread."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged."
    )

    @field_validator("prompt_ending")
    @classmethod
    def _is_one_line(cls, words: str) -> str:
        # Of no width is allowed: some languages write with such characters.
        if any(unicodedata.category(letter) in _NOT_ON_A_LINE for letter in words):
            raise ValueError("a prompt's ending is one line of text")
        return words.strip()

    @field_validator("personas")
    @classmethod
    def _names_personas(cls, words: str) -> str:
        try:
            rules_from(words)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return words

    @property
    def directions_dir(self) -> Path:
        """Where style directions made on this machine are kept."""
        return self.cache_dir.expanduser() / "directions"

    @property
    def resolved_varied_share(self) -> float:
        """Share of pairs in two styles: the styled user model needs them to learn fast."""
        if self.varied_share is not None:
            return self.varied_share
        return 0.6 if self.user_model == "styled" else 0.0

    @property
    def resolved_engine_threads(self) -> int:
        """CPU threads of the engine, half the cores by default.

        Packed decoding is no slower on one of two cores than on both, and its steps stay short
        while a round runs: with threads on every core each step waits for the trainer's.
        """
        return self.engine_threads or max(1, (os.cpu_count() or 1) // 2)

    @property
    def resolved_database_url(self) -> str:
        """The database URL, SQLite in the data folder by default."""
        file = (self.data_dir / "attune.db").expanduser().absolute()
        return self.database_url or f"sqlite:///{file}"


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from `environ`.

    Raises:
        ConfigurationError: a name is unknown or a value does not fit; one line says which.
    """
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"unknown setting {name}{hint}")
    values = {
        name: environ[key]
        for name in Settings.model_fields
        if (key := f"{_PREFIX}{name.upper()}") in environ
    }
    values = _space_values(environ) | values
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{_PREFIX}{str(first['loc'][0]).upper()}"
        why = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name}={first['input']!r}: {why}") from None


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with other settings: for the `app.py` that is to read it."""
    return {**os.environ, **{f"{_PREFIX}{name.upper()}": v for name, v in settings.items()}}


def _space_values(environ: Mapping[str, str]) -> dict[str, str]:
    """What a Hugging Face Space says of itself; an `ATTUNE_…` variable wins over it."""
    values: dict[str, str] = {}
    if host := environ.get("SPACE_HOST"):
        values |= {"embed": "true", "host": "0.0.0.0", "public_url": f"https://{host}"}  # noqa: S104
    if client_id := environ.get("OAUTH_CLIENT_ID"):
        values |= {
            "hf_client_id": client_id,
            "hf_client_secret": environ.get("OAUTH_CLIENT_SECRET", ""),
        }
    if provider := environ.get("OPENID_PROVIDER_URL"):
        values["hf_provider_url"] = provider
    return values
