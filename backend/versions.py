"""Which version is live: the database decides, the engine follows.

Promotion and roll-back only write rows; `follow` is the one place where the engine is swapped. A
damaged artifact is refused, marked, and the version before it is served.
Knows nothing of training.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from backend.engines.base import Engine, VersionRef
from backend.errors import Conflict, NotFound
from db.models import Promotion, Version
from db.queries import rounds as queries
from db.session import Database
from trainer.artifacts import (
    ArtifactDamaged,
    ArtifactUnreadable,
    manifest_sha256,
    read_recipe,
)
from trainer.config import TrainConfig

_log = logging.getLogger(__name__)
_LOOK_AGAIN = timedelta(minutes=1)


class Versions:
    """Keeps the engine on the live version."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        folder: Path,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._engine = engine
        self._folder = folder
        self._clock = clock
        self._swapping = threading.Lock()
        # Versions whose directory this process did not find or could not read, and when. Not marked
        # as damaged: what is not mounted here may be fine elsewhere, and here in a moment.
        self._missing: dict[int, datetime] = {}
        self._listeners: list[Callable[[], None]] = []

    def on_swap(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each swap."""
        self._listeners.append(listener)

    def path_of(self, artifact: str) -> Path:
        """Where a version's artifact lies."""
        return self._folder / artifact

    def live(self, session: Session) -> Version | None:
        """The version that should be served: the newest promoted one, found here or not."""
        return queries.live_version(session, self._engine.model_identity)

    def serves_live(self) -> bool:
        """Whether the engine serves the live version, and no older one in its place."""
        with self._database.read() as session:
            live = self.live(session)
        served = self._engine.live_version
        return live is not None and served is not None and served.version_id == live.id

    def free_name(self, name: str) -> str:
        """`name`, or `name-2`, `name-3`, … when a directory has it already."""
        candidate, number = name, 1
        while self.path_of(candidate).exists():
            number += 1
            candidate = f"{name}-{number}"
        return candidate

    def ensure_initial(self) -> None:
        """Make the version that is served before the first round, if this base model has none."""
        identity = self._engine.model_identity
        with self._database.read() as session:
            if self._servable(session) is not None:
                return
            if self.live(session) is not None:
                _log.error("no version is found in %s: everybody gets a new one", self._folder)
        name = self.free_name(f"initial-{identity[:12]}")
        self._engine.write_initial(self._folder / name)
        with self._database.write() as session:
            self.promote(session, name, identity, cause="initial", round_id=None)

    def promote(
        self, session: Session, artifact: str, identity: str, *, cause: str, round_id: int | None
    ) -> Version:
        """Rows for a new version that is live once the caller's transaction commits."""
        now = self._clock()
        version = Version(
            round_id=round_id,
            artifact=artifact,
            manifest_sha256=manifest_sha256(self._folder / artifact),
            base_identity=identity,
            created_at=now,
        )
        session.add(version)
        session.flush()
        session.add(Promotion(version_id=version.id, cause=cause, at=now))
        return version

    def roll_back(self, version_id: int, by_user_id: int) -> None:
        """Make an older version live again.

        Raises:
            NotFound: no such version. Conflict: it is damaged, live already, of another model, or
            its directory turns out not to be there whole.
        """
        identity = self._engine.model_identity
        with self._database.write() as session:
            # A round promotes under this lock: it ends before, or finds its parent not live.
            queries.lock_lease(session)
            version = session.get(Version, version_id)
            if version is None:
                raise NotFound(f"There is no version {version_id}.")
            if version.damaged_at is not None:
                raise Conflict(f"Version {version_id} is damaged and cannot be served.")
            if version.base_identity != identity:
                raise Conflict(f"Version {version_id} belongs to another base model.")
            live = self.live(session)
            if live is not None and live.id == version_id:
                raise Conflict(f"Version {version_id} is live already.")
            # Before the row is there: every process follows it, and nobody would take it back.
            if not _is_found(self.path_of(version.artifact)):
                raise self._not_served(version_id)
            self._missing.pop(version_id, None)
            session.add(
                Promotion(
                    version_id=version_id, cause="rollback", by_user_id=by_user_id, at=self._clock()
                )
            )
        self.follow()
        served = self._engine.live_version
        if served is not None and served.version_id != version_id:
            raise self._not_served(version_id)

    def _not_served(self, version_id: int) -> Conflict:
        served = self._engine.live_version
        instead = "" if served is None else f" Version {served.version_id} is served instead."
        return Conflict(f"Version {version_id} is damaged or not found here.{instead}")

    def follow(self) -> None:
        """Swap the engine to the live version if it serves another one."""
        with self._swapping:
            swapped = self._follow()
        if swapped:
            for listener in self._listeners:
                listener()

    def _follow(self) -> bool:
        while True:
            with self._database.read() as session:
                live = self._servable(session)
            if live is None:  # all gone or damaged: start again from the base model
                self.ensure_initial()
                continue
            path = self._folder / live.artifact
            # By its directory too: one is written anew when somebody in it is erased.
            if self._engine.live_version == VersionRef(live.id, path):
                return False
            if not _is_found(path):
                self._pass_over(live, f"there is no folder {path}")
                continue
            try:
                if manifest_sha256(path) != live.manifest_sha256:
                    raise ArtifactDamaged(f"{live.artifact}: the manifest was changed")
                self._engine.swap(VersionRef(live.id, path))
            except ArtifactUnreadable as error:
                self._pass_over(live, str(error))
            except ArtifactDamaged as error:
                _log.error("version %s is refused: %s", live.id, error)
                with self._database.write() as session:
                    session.get_one(Version, live.id).damaged_at = self._clock()
            else:
                _log.info("version %s is live", live.id)
                return True

    def _pass_over(self, version: Version, why: str) -> None:
        _log.error("version %s is not served: %s", version.id, why)
        self._missing[version.id] = self._clock()

    def _servable(self, session: Session) -> Version | None:
        """The newest promoted version that was not passed over within the last minute."""
        now = self._clock()
        missed = [version for version, at in self._missing.items() if abs(now - at) < _LOOK_AGAIN]
        return queries.live_version(session, self._engine.model_identity, missed)


def _is_found(path: Path) -> bool:
    """Whether there is such a folder, as far as this process can see."""
    try:
        return path.is_dir()
    except OSError:  # no right to look, or a mount gone stale
        return False


def begun_with(database: Database, identity: str, folder: Path) -> TrainConfig | None:
    """Recipe of the version that a start goes on from, known before there is an engine.

    The newest one that can be read here. None: this base model has no version of which that is so.
    """
    unreadable: list[int] = []
    with database.read() as session:
        while (version := queries.live_version(session, identity, unreadable)) is not None:
            try:
                return read_recipe(folder / version.artifact)
            except ArtifactDamaged:
                unreadable.append(version.id)
    return None
