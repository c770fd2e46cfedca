"""A person's vector in the versions' directories: read for its owner, taken out of all of them.

A directory is never changed: it is written anew without the vector, under another name; one
transaction makes the rows name that one, and the engine follows. Knows no page.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from backend.engines.base import VersionRef
from db.queries import erasure as queries
from db.queries import rounds as round_queries
from db.session import Database
from trainer.artifacts import ArtifactDamaged, read_user_vectors, write_without

_log = logging.getLogger(__name__)
# Another process may have read the old name a moment ago and be loading it now.
_LEFT_FOR = timedelta(minutes=1)
_COPY = re.compile(r"(?P<stem>.+?)(?:~(?P<number>\d+))?")


@dataclass(frozen=True, slots=True)
class OwnVector:
    """e_u as it is served.

    Attributes:
        values: (P, H), row by row.
    """

    version_id: int
    values: tuple[tuple[float, ...], ...]


class VectorFiles:
    """The versions' directories, as far as single users are concerned."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        live: Callable[[], VersionRef | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._folder = folder
        self._live = live
        self._clock = clock
        self._lock = threading.Lock()
        self._holders: dict[str, frozenset[int]] = {}  # by directory, which never change
        self._left: dict[str, datetime] = {}  # replaced directories, and when first seen as such

    def read(self, user_id: int) -> OwnVector | None:
        """The vector this user is served with; None while it is everyone's."""
        live = self._live()
        if live is None:
            return None
        try:
            vector = read_user_vectors(live.path).personal.get(user_id)
        except ArtifactDamaged as error:
            _log.warning("a vector could not be read: %s", error)
            return None
        if vector is None:
            return None
        return OwnVector(live.version_id, tuple(tuple(row) for row in vector.tolist()))

    def forget_live(self) -> None:
        """Take erased users out of the version being served.

        Raises:
            OSError: it could not be written.
        """
        live = self._live()
        with self._lock:
            if live is not None:
                self._forget(live.path.name, self._erased())

    def forget(self) -> None:
        """Take erased users out of every version and round, then remove what was replaced.

        Raises:
            OSError: a directory could not be written; all before it are done.
        """
        with self._lock:
            erased = self._erased()
            if not erased:
                return
            with self._database.read() as session:
                named = queries.artifact_names(session)
                running = round_queries.running_round(session) is not None
            self._remove_left(named, running)
            for name in named:
                self._forget(name, erased)

    def _erased(self) -> frozenset[int]:
        with self._database.read() as session:
            return queries.erased_ids(session)

    def _forget(self, name: str, erased: Collection[int]) -> None:
        gone = self._held(name) & set(erased)
        if not gone:
            return
        new = self._free_name(name)
        try:
            manifest = write_without(self._folder / name, self._folder / new, gone)
        except ArtifactDamaged as error:
            _log.error("erased users stay in %s, remove it by hand: %s", name, error)
            return
        with self._database.write() as session:
            queries.rename_artifact(session, name, new, manifest)
        _log.info("%s is %s now, without %d erased users", name, new, len(gone))

    def _held(self, name: str) -> frozenset[int]:
        """Users with a vector in a directory; nobody where it is not on this machine."""
        if name not in self._holders and (self._folder / name).is_dir():
            try:
                vectors = read_user_vectors(self._folder / name)
            except ArtifactDamaged as error:
                _log.error("cannot see whose vectors are in %s: %s", name, error)
                return frozenset()
            self._holders[name] = frozenset(vectors.personal)
        return self._holders.get(name, frozenset())

    def _free_name(self, name: str) -> str:
        stem, number = _parts(name)
        while (self._folder / f"{stem}~{number + 1}").exists():
            number += 1
        return f"{stem}~{number + 1}"

    def _remove_left(self, named: Collection[str], running: bool) -> None:
        """Remove directories that a copy has replaced; a round may be reading its parent still."""
        numbers = dict(_parts(name) for name in named)
        now = self._clock()
        for path in self._folder.iterdir():
            stem, number = _parts(path.name)
            if path.name in named or number >= numbers.get(stem, number):
                continue
            since = self._left.setdefault(path.name, now)
            if now - since >= _LEFT_FOR and not running:
                shutil.rmtree(path)
                del self._left[path.name]
                self._holders.pop(path.name, None)


def _parts(name: str) -> tuple[str, int]:
    """`round-000007~2` → (`round-000007`, 2); without a number, 0."""
    match = _COPY.fullmatch(name)
    return (match["stem"], int(match["number"] or 0)) if match else (name, 0)
