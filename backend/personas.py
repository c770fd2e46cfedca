"""Simulated users at work: they get comparisons and choose, by the use cases people use.

A few threads take the personas in turn, one choice at a time, so that the engine has several
comparisons to batch and no persona gets ahead. Nobody waits for a persona, so its desk asks at
`Priority.SIMULATED` and makes nothing ahead of time. Knows no pages and no models.

`python -m backend.personas --help` starts Attune with some (`persona_command.py`).
"""

from __future__ import annotations

import logging
import random
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from backend.auth import Accounts
from backend.comparison_views import ComparisonView
from backend.comparisons import Desk
from backend.errors import Conflict, NotSignedIn, friendly
from backend.persona_cast import DEFAULT_CHOICES, DEFAULT_NOISE, Persona

_log = logging.getLogger(__name__)
_SIDE_BY_SIDE = 3
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class PersonaRow:
    """One persona of a run and how many choices it has made in it."""

    persona: Persona
    choices: int


@dataclass(frozen=True, slots=True)
class Running:
    """What the personas are doing.

    Attributes:
        active: some are choosing; otherwise the rows tell of the last run.
        limit: a persona stops after so many choices; None: it goes on until it is stopped.
    """

    active: bool
    limit: int | None
    rows: tuple[PersonaRow, ...]


class Personas:
    """At most one run at a time.

    Args:
        desk: a desk that asks at `Priority.SIMULATED`.
        noise, side_bias: of every persona (`persona_cast.Persona`).
        limit: each stops after so many choices; None: only when stopped.
        side_by_side: how many personas choose at once.
    """

    def __init__(
        self,
        desk: Desk,
        accounts: Accounts,
        *,
        rng: random.Random,
        noise: float = DEFAULT_NOISE,
        side_bias: float = 0.0,
        limit: int | None = DEFAULT_CHOICES,
        side_by_side: int = _SIDE_BY_SIDE,
    ) -> None:
        self._desk = desk
        self._accounts = accounts
        self._rng = rng
        self._noise = noise
        self._side_bias = side_bias
        self._limit = limit
        self._side_by_side = side_by_side
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._threads: list[threading.Thread] = []

    def start(self, rules: Sequence[str]) -> None:
        """Let one persona per rule choose until `stop` or the limit.

        Each gets the account that it had before, or a new one.

        Raises:
            Conflict: some are choosing already. NotAllowed: one's account is disabled.
            InvalidInput: there is no such rule.
        """
        cast = [Persona(rule, self._noise, self._side_bias) for rule in rules]
        with self._lock:
            if self._run is not None and self._run.active:
                raise Conflict("Personas are choosing already. Stop them first.")
            actors = [self._actor(persona) for persona in cast]
            run = _Run(self._desk, self._accounts, actors, self._limit, self._rng)
            threads = [
                threading.Thread(target=run.work, name="persona", daemon=True)
                for _ in actors[: self._side_by_side]
            ]
            self._run = run
            self._threads = [old for old in self._threads if old.is_alive()] + threads
            for thread in threads:
                thread.start()
        _log.info("%s personas are choosing", len(actors))

    def stop(self) -> None:
        """No more choices; returns at once. What is being written for one is kept for next time."""
        with self._lock:
            if self._run is not None:
                self._run.stop()

    def close(self) -> None:
        """Stop, and wait for the threads. They end soon once the engine is closed."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def running(self) -> Running:
        """Who is choosing, and how far they are."""
        with self._lock:
            return Running(False, None, ()) if self._run is None else self._run.state()

    def _actor(self, persona: Persona) -> _Actor:
        account = self._accounts.simulated(persona.username, persona.as_json())
        return _Actor(persona, account.id)


@dataclass(slots=True)
class _Actor:
    persona: Persona
    user_id: int
    choices: int = 0


class _Run:
    """The personas from one `start` to its `stop`, taken in turn by the threads in `work`."""

    def __init__(
        self,
        desk: Desk,
        accounts: Accounts,
        actors: Sequence[_Actor],
        limit: int | None,
        rng: random.Random,
    ) -> None:
        self._desk = desk
        self._accounts = accounts
        self._actors = tuple(actors)
        self._limit = limit
        self._rng = rng
        self._changed = threading.Condition()
        self._in_turn = deque(actors)
        self._left = len(self._in_turn)  # in turn or just choosing
        self._stopped = False

    @property
    def active(self) -> bool:
        """Not stopped, and somebody is left."""
        return not self._stopped and self._left > 0

    def state(self) -> Running:
        with self._changed:
            rows = tuple(PersonaRow(actor.persona, actor.choices) for actor in self._actors)
            return Running(self.active, self._limit, rows)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def work(self) -> None:
        """Take the next persona, let it choose, put it back; until the run is over."""
        pause_s = _FIRST_PAUSE_S
        while (actor := self._next()) is not None:
            goes_on = True
            try:
                self._choose(actor)
                goes_on = self._limit is None or actor.choices < self._limit
                pause_s = _FIRST_PAUSE_S
            except NotSignedIn:
                _log.warning("the account '%s' was disabled", actor.persona.username)
                goes_on = False
            except Exception as error:  # noqa: BLE001 — a turn's end, as a job's: the next may work
                self._put_off(actor, error, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            finally:
                self._put_back(actor, goes_on)

    def _next(self) -> _Actor | None:
        with self._changed:
            self._changed.wait_for(lambda: self._in_turn or not self.active)
            return self._in_turn.popleft() if self.active else None

    def _put_back(self, actor: _Actor, goes_on: bool) -> None:
        with self._changed:
            if goes_on:
                self._in_turn.append(actor)
            else:
                self._left -= 1
            self._changed.notify_all()

    def _put_off(self, actor: _Actor, error: Exception, pause_s: float) -> None:
        """Wait before the next try, but not for longer than until the run is stopped."""
        with self._changed:
            if self._stopped:
                return  # the engine was closed under it
            unforeseen = None if friendly(error) else error
            name = actor.persona.username
            _log.warning(
                "'%s' tries again in %.0f s: %s", name, pause_s, error, exc_info=unforeseen
            )
            self._changed.wait_for(lambda: self._stopped, pause_s)

    def _choose(self, actor: _Actor) -> None:
        """One choice, unless the run is stopped meanwhile."""
        self._accounts.user(actor.user_id)  # disabled since?
        view = self._read(actor.user_id)
        if view is None or view.comparison_id is None:
            return
        verdict = actor.persona.verdict(view.text_a, view.text_b, self._rng)
        self._desk.choose(actor.user_id, view.comparison_id, verdict)
        with self._changed:
            actor.choices += 1

    def _read(self, user_id: int) -> ComparisonView | None:
        """The next comparison, complete; None when the run was stopped first."""
        newest = None
        for view in self._desk.stream(user_id):
            newest = view
            if self._stopped:
                return None
        return newest


if __name__ == "__main__":
    from backend.persona_command import main

    sys.exit(main())
