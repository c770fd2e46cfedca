"""Attune's composition root: settings → objects → web app → start, stop.

`python app.py` is all a Space or a server runs. The web server answers from the first moment; torch
and Gradio are imported, and the model loaded, behind it in `_open`.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from backend import base_model, startup
from backend.administration import Administration
from backend.errors import AttuneError, ConfigurationError, Unavailable
from backend.front_door import FrontDoor
from backend.guards import trusted_proxies
from backend.persona_cast import rules_from
from backend.settings import Settings, load_settings
from db.session import Database
from ui import server_pages
from ui.language import Languages, folders_of

_log = logging.getLogger("attune")
_STARTED = 0
_CANNOT_START = 2


def main() -> int:
    """Run until stopped; returns the exit status: 0, or 2 when it cannot start as configured."""
    try:
        settings = load_settings(os.environ)
        _prepare_process(settings)
        return _serve(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"attune: {error}\n")
        return _CANNOT_START


def _prepare_process(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Read when OpenMP, Gradio and tqdm are first imported, which is later, in `_open`.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("TQDM_DISABLE", "1")  # a log is no place for progress bars


def _serve(settings: Settings) -> int:
    with ExitStack() as closing:
        data = startup.prepare_data_dir(settings.data_dir)
        base_model.check_name(settings.model)
        closing.callback(startup.hold_alone(settings.resolved_database_url))
        database = startup.open_database(settings.resolved_database_url)
        closing.callback(database.close)
        listening = startup.listen(settings.host, settings.port)
        closing.callback(listening.close)
        address = (
            settings.public_url or f"http://{startup.host_and_port(*listening.getsockname()[:2])}"
        )

        languages = Languages(settings.language, folders_of(settings.languages_dir))
        door = FrontDoor(server_pages.WaitingPage(languages), framers=_framers(settings))
        server = uvicorn.Server(
            uvicorn.Config(
                door,
                log_level="warning",
                timeout_graceful_shutdown=3,
                proxy_headers=bool(settings.public_url),
                forwarded_allow_ips=trusted_proxies(embed=settings.embed),
            )
        )

        def open_house() -> None:
            try:
                _open(settings, data, database, languages, door=door, closing=closing)
            except Unavailable:
                return  # stopped while starting
            except AttuneError as error:
                door.fail(str(error))
                sys.stderr.write(f"attune: {error}\n")
                server.should_exit = True
            except Exception:  # noqa: BLE001 — the thread's end: nobody else would say it
                _log.exception("cannot start")
                door.fail("cannot start; the log says why")
                server.should_exit = True
            else:
                _greet(address, database, personas=bool(rules_from(settings.personas)))

        opening = threading.Thread(target=open_house, name="opening")
        opening.start()
        _say(f"Attune is starting at {address}")
        # uvicorn raises the signal that stopped it once more when it is done: without a handler of
        # ours the process would end there, and nothing below would be closed.
        _on_signals(_stop_is_under_way)
        server.run(sockets=[listening])
        if opening.is_alive():
            _say("Stopping when the model has been fetched and loaded; once more: at once.")
            _on_signals(signal.SIG_DFL)  # a download can take hours, and cannot be called back
            opening.join()
            _on_signals(_stop_is_under_way)
        return _STARTED if door.failure is None else _CANNOT_START


def _open(
    settings: Settings,
    data: Path,
    database: Database,
    languages: Languages,
    *,
    door: FrontDoor,
    closing: ExitStack,
) -> None:
    """Build the house and install it behind the front door."""
    with nothing_collected():
        # Late, and only here: this import takes seconds.
        with no_stubs():
            import assembly  # noqa: PLC0415

        ground = assembly.Ground(
            settings=settings,
            data=data,
            database=database,
            languages=languages,
            announce=door.announce,
            closing=closing,
        )
        web, waits_for = assembly.build(ground)
    door.install(web, waits_for)


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Inside, garbage stays; what is there afterwards is never looked through again.

    Imports make a million objects that stay for good, and looking for garbage among them again and
    again takes a sixth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def no_stubs() -> Iterator[None]:
    """Inside, Gradio's import leaves its type stubs as they are, which takes it half the time.

    It makes them anew from the source of each component, and does without where there is none.
    """
    getfile = inspect.getfile

    def of_others(thing: Any) -> str:  # whatever may have a source
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("type stubs are not made")
        return getfile(thing)

    inspect.getfile = of_others  # type: ignore[assignment] # mypy: its parameter has another name
    try:
        yield
    finally:
        inspect.getfile = getfile


def _greet(address: str, database: Database, *, personas: bool) -> None:
    _say(f"Attune is ready at {address}")
    if personas:
        _say(f"Simulated users are choosing; researchers see how far they are at {address}/lab/")
    invite = Administration(database, clock=lambda: datetime.now(UTC)).first_admin_invite()
    if invite is not None:
        _say(f"Make the first admin, once, at {address}/invite/{invite}")


def _framers(settings: Settings) -> str:
    return "https://huggingface.co" if settings.embed else "'none'"


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _stop_is_under_way(_number: int, _frame: FrameType | None) -> None:
    _log.info("stopping")


def _say(line: str) -> None:
    """A line for the person who started the program."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
