"""Every object wired to the next: the model, the engine, the use cases, the pages, the threads.

`app.py` imports this module late, in a thread: torch, transformers and Gradio take seconds to
import, and the web server answers meanwhile. With `app.py` it is the composition root: nothing
else sees all of the house.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from backend import base_model, prompts
from backend.administration import Administration
from backend.auth import Accounts
from backend.base_model import BaseModel
from backend.comparisons import Desk
from backend.engines.base import Engine, Priority, Sampling
from backend.engines.echo import EchoEngine
from backend.engines.kernels import compiled_kernels
from backend.erasure import Erasure
from backend.errors import AttuneError, ConfigurationError
from backend.evidence import Evidence
from backend.history import History
from backend.insights import Insights
from backend.introductions import Introductions, read_consent
from backend.lease import Lease, this_process
from backend.local_model import (
    check_recipe,
    make_local_engine,
    train_config,
    trainer_arguments,
    with_user_model,
)
from backend.making import Maker
from backend.my_data import MyData
from backend.oauth import HuggingFaceLogin
from backend.passwords import Passwords
from backend.persona_cast import rules_from
from backend.personas import Personas
from backend.plans import Shares
from backend.preferences import DeskPreferences
from backend.prefetch import Prefetcher
from backend.prequential import Scorer
from backend.profiles import Profiles
from backend.repeats import Repeats
from backend.round_input import RoundLimits
from backend.scheduler import Job, start_scheduler
from backend.settings import Settings
from backend.shared_pairs import SharedPairs
from backend.styles import load_styles, with_directions
from backend.taste import Tastes
from backend.trainer_process import TrainerProcess
from backend.training import Training
from backend.trying import Trials
from backend.vector_files import VectorFiles
from backend.versions import Versions, begun_with
from backend.web import SessionCookie, Visitors, create_web
from backend.wording import msg
from db.session import Database
from trainer.kernels import kernels as scoring_kernels
from trainer.sharing import SharedModel
from ui import layout, server_pages
from ui.compare import build_compare
from ui.compare_handlers import DeskServices
from ui.form_pages import add_form_pages
from ui.lab import build_lab
from ui.language import Languages
from ui.taste import TasteServices, build_taste

_log = logging.getLogger(__name__)
_TIDY_EVERY_S = 3600.0
_SWEEP_EVERY_S = 60.0
# Rounds leave a pair alone so long for its prequential score; scoring takes a second or less.
_SCORE_WAIT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What stands before the house is built.

    Attributes:
        languages: what the pages can be read in.
        announce: says what is going on, for the waiting page.
        closing: undoes, last first, what was started.
    """

    settings: Settings
    data: Path
    database: Database
    languages: Languages
    announce: Callable[[str], None]
    closing: ExitStack


def build(ground: Ground) -> tuple[FastAPI, Callable[[], str | None]]:
    """Load the model, wire and start everything; the app, and what it waits for from then on.

    Raises:
        ConfigurationError: the model cannot be had or loaded, or the settings do not fit it.
    """
    database, folder = ground.database, ground.data / "versions"
    prompts.import_bank(database, now(), ground.settings.prompt_ending)
    model = None if ground.settings.engine == "echo" else _resolve_model(ground)
    if model is not None:
        begun = begun_with(database, model.identity, folder)
        ground = replace(ground, settings=with_user_model(ground.settings, model.identity, begun))
    settings = ground.settings
    engine, shared, waits_for = _make_engine(ground, model)
    versions = Versions(database, engine, folder, clock=now)
    ground.announce(msg("preparing the first version"))
    try:
        versions.follow()
    except ValueError as error:  # the recipe's adapter does not fit this model
        raise ConfigurationError(f"cannot tune the model {settings.model}: {error}") from error
    if model is not None and settings.trainer and (live := engine.live_version) is not None:
        check_recipe(settings, live.path)
    accounts = Accounts(
        database,
        passwords=Passwords(),
        clock=now,
        signup=settings.signup,
        guests=settings.guests,
        session_days=settings.session_days,
    )
    desk, personas = _make_desk(ground, engine, versions, accounts)
    training = _make_training(ground, engine, versions, model, shared)
    ground.announce(msg("opening the pages"))
    insights = Insights(
        database,
        identity=engine.model_identity,
        live_version=lambda: engine.live_version.version_id if engine.live_version else 0,
        min_choices=settings.round_min_choices,
    )
    preferences = DeskPreferences(database, clock=now, daily_goal=settings.daily_goal)
    compare = build_compare(DeskServices(desk, preferences, insights, accounts, ground.languages))
    evidence = Evidence(database, identity=engine.model_identity)
    lab = build_lab(insights, training, versions, accounts, personas, evidence=evidence)
    taste = _make_taste(ground, engine, insights, accounts)
    pages = layout.Pages(compare=compare, taste=taste, lab=lab)
    vectors = _vector_files(ground, engine, model)
    erasure = Erasure(database, vectors, follow=versions.follow, clock=now)
    web = _make_web(ground, accounts, pages, vectors, erasure)
    scorer = Scorer(database, engine, clock=now)
    jobs = [
        Job("score", scorer.run, settings.tick_s),
        Job("follow", versions.follow, settings.tick_s),
        Job("tidy", accounts.tidy, _TIDY_EVERY_S),
        Job("sweep", erasure.sweep, _SWEEP_EVERY_S),
    ]
    if model is not None and settings.trainer:
        jobs.append(Job("tick", training.tick, settings.tick_s))
    ground.closing.callback(start_scheduler(jobs).shutdown)
    ground.closing.callback(scorer.close)
    _start_personas(settings, personas)
    return web, waits_for


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def _resolve_model(ground: Ground) -> BaseModel:
    asked = ground.settings
    return base_model.resolve(asked.model, asked.model_revision, asked.cache_dir, ground.announce)


def _make_engine(
    ground: Ground, model: BaseModel | None
) -> tuple[Engine, SharedModel | None, Callable[[], str | None]]:
    if model is None:
        return EchoEngine(), None, lambda: None
    ground.announce(msg("loading the model"))
    # The compiler, some seconds at most, is at work while the model is read.
    one = ground.settings.resolved_engine_threads == 1
    threading.Thread(target=_compile, args=(one,), name="compiling", daemon=True).start()
    engine, shared = make_local_engine(ground.settings, model)
    engine.check_response_tokens(ground.settings.max_new_tokens)
    return engine, shared, engine.waits_for


def _compile(one_thread: bool) -> None:
    """What the engine decodes with, where it uses it, and then what it scores with."""
    if one_thread:
        compiled_kernels()
    scoring_kernels()


def _make_desk(
    ground: Ground, engine: Engine, versions: Versions, accounts: Accounts
) -> tuple[Desk, Personas]:
    """The people's desk, and the personas at one of their own."""
    settings, database, closing = ground.settings, ground.database, ground.closing
    rng = random.SystemRandom()
    styles = load_styles()
    directed = with_directions(styles) if settings.user_model == "styled" else ()
    maker = Maker(
        database,
        engine,
        sampling=_sampling(settings),
        shares=Shares(
            blind=settings.blind_share,
            base=settings.base_share,
            varied=settings.resolved_varied_share,
        ),
        styles=styles,
        directions={style.name: index for index, style in enumerate(directed)},
        drafts=settings.drafts,
        shared=SharedPairs(database, first=settings.shared_pairs, clock=now, rng=rng),
        repeats=Repeats(database, share=settings.repeat_share, clock=now, rng=rng),
        clock=now,
        rng=rng,
        profile_of=_profiles(ground).in_prompt,
    )
    make_desk = partial(
        Desk, database, maker, max_prompt_chars=settings.max_prompt_chars, clock=now, rng=rng
    )
    simulated = make_desk(pair_taken=lambda _user_id: None, priority=Priority.SIMULATED)
    personas = Personas(
        simulated,
        accounts,
        rng=rng,
        noise=settings.persona_noise,
        side_bias=settings.persona_side_bias,
        limit=settings.persona_choices or None,
    )
    # Closed last first: no new pairs, then the engine gives up its own, then whoever waits for one
    # and the maker let go.
    closing.callback(maker.close)
    closing.callback(personas.close)
    closing.callback(engine.close)
    closing.callback(personas.stop)
    prefetcher = Prefetcher(database, engine, maker, target=settings.prefetch, clock=now, rng=rng)
    closing.callback(prefetcher.close)
    versions.on_swap(prefetcher.look_again)
    return make_desk(pair_taken=prefetcher.wanted, reveal=settings.reveal), personas


def _sampling(settings: Settings) -> Sampling:
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
    )


def _make_taste(
    ground: Ground, engine: Engine, insights: Insights, accounts: Accounts
) -> gr.Blocks:
    settings, database, profiles = ground.settings, ground.database, _profiles(ground)
    trials = Trials(
        database,
        engine,
        sampling=_sampling(settings),
        max_prompt_chars=settings.max_prompt_chars,
        rng=random.SystemRandom(),
        profile_of=profiles.in_prompt,
    )
    return build_taste(
        TasteServices(
            accounts=accounts,
            insights=insights,
            tastes=Tastes(database, identity=engine.model_identity),
            history=History(database, clock=now),
            profiles=profiles,
            trials=trials,
            languages=ground.languages,
        )
    )


def _vector_files(ground: Ground, engine: Engine, model: BaseModel | None) -> VectorFiles | None:
    """None with `echo`, whose versions hold no vectors."""
    if model is None:
        return None
    folder = ground.data / "versions"
    return VectorFiles(ground.database, folder, live=lambda: engine.live_version, clock=now)


def _start_personas(settings: Settings, personas: Personas) -> None:
    try:
        if rules := rules_from(settings.personas):
            personas.start(rules)
    except AttuneError as error:  # an account was disabled: no reason to keep people out
        _log.warning("no personas: %s", error)


def _make_training(
    ground: Ground,
    engine: Engine,
    versions: Versions,
    model: BaseModel | None,
    shared: SharedModel | None,
) -> Training:
    settings, database, closing = ground.settings, ground.database, ground.closing
    trainer = TrainerProcess(
        trainer_arguments(settings, model) if model is not None else [],
        None if shared is None else shared.handles,
    )
    training = Training(
        database,
        trainer,
        versions,
        Lease(database, this_process(), clock=now),
        identity=engine.model_identity,
        config=train_config(settings),
        limits=RoundLimits(
            new=settings.round_max_new,
            replay=settings.round_replay,
            user_cap=settings.round_user_cap,
        ),
        min_choices=settings.round_min_choices,
        max_wait=timedelta(seconds=settings.round_max_wait_s),
        timeout_s=settings.round_timeout_s,
        clock=now,
        score_wait=_SCORE_WAIT,
        fast_choices=settings.fast_update_choices,
        styles=load_styles(),
    )
    if model is not None and settings.trainer:
        closing.callback(training.close)
        closing.callback(trainer.close)
        trainer.start()
    return training


def _profiles(ground: Ground) -> Profiles:
    return Profiles(ground.database, used=ground.settings.profiles)


def _make_web(
    ground: Ground,
    accounts: Accounts,
    pages: layout.Pages,
    vectors: VectorFiles | None,
    erasure: Erasure,
) -> FastAPI:
    settings = ground.settings
    secure = settings.public_url.startswith("https://")
    hugging_face = _hugging_face(settings, secure)
    web = create_web(
        assets=layout.ASSETS,
        error_page=server_pages.ErrorPage(ground.languages),
        public_url=settings.public_url,
        embed=settings.embed,
        form_targets=(hugging_face.origin,) if hugging_face is not None else (),
    )
    introductions = Introductions(
        ground.database,
        clock=now,
        offered=settings.introduction,
        consent_text=read_consent(settings.consent_file),
    )
    visitors = Visitors(accounts, lacks_consent=introductions.lacks_consent)
    add_form_pages(
        web,
        accounts=accounts,
        administration=Administration(ground.database, clock=now),
        visitors=visitors,
        cookie=SessionCookie(secure=secure, embed=settings.embed),
        languages=ground.languages,
        introductions=introductions,
        my_data=MyData(ground.database, vectors, clock=now),
        erasure=erasure,
        hugging_face=hugging_face,
        public_url=settings.public_url,
        embed=settings.embed,
    )
    layout.mount(
        web,
        pages,
        languages=ground.languages,
        signed_in=visitors.page_user,
        researcher=visitors.researcher_only,
    )
    return web


def _hugging_face(settings: Settings, secure: bool) -> HuggingFaceLogin | None:
    if not (settings.hf_client_id and settings.hf_client_secret):
        return None
    return HuggingFaceLogin(
        client_id=settings.hf_client_id,
        client_secret=settings.hf_client_secret,
        provider_url=settings.hf_provider_url,
        secure=secure,
        embed=settings.embed,
    )
