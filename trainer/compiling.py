"""C sources of the project made into libraries by the system's compiler, where there is one.

Knows nothing of what the functions do.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O3", "-march=native", "-shared", "-fPIC", "-fno-math-errno")
_COMPILING_S = 60.0

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")


def compiled_once(
    source: Path, made_of: Callable[[ctypes.CDLL], _Made]
) -> Callable[[], _Made | None]:
    """What gives the functions of `source`, compiled when somebody first asks for them.

    The first caller has them compiled, whoever comes meanwhile waits. None without a compiler that
    can make them.

    Args:
        made_of: what is made of the library.
    """
    compiling = threading.Lock()

    @cache
    def once() -> _Made | None:
        found = compiler()
        library = None if found is None else compiled(source, found)
        return None if library is None else made_of(library)

    def functions() -> _Made | None:
        with compiling:
            return once()

    return functions


def compiler() -> str | None:
    """The system's C compiler; None without one."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def compiled(source: Path, by: str) -> ctypes.CDLL | None:
    """A library made of `source` by this compiler; None if it cannot."""
    with tempfile.TemporaryDirectory(prefix="attune-") as folder:
        library = Path(folder) / "made.so"
        command = [by, *_OPTIONS, "-o", str(library), str(source), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILING_S)
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError) as error:
            logger.info("%s is not compiled: %s", source.name, error)
            return None
