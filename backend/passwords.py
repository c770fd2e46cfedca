"""What a name and a password must be, and how passwords are kept: argon2id.

Knows no database and no user.
"""

from __future__ import annotations

import re
import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from backend.errors import InvalidInput
from backend.wording import msg

GUEST_PREFIX = "guest-"
_CHARACTERS = msg("A name has 3 to 32 letters (a–z), digits, dots, dashes or underscores.")
_GUESTS_NAME = msg("Names that begin with {prefix} are for guests.")
_SHORT = msg("A password needs at least {least} characters.")
_LONG = msg("A password has at most {most} characters.")
LONGEST_PASSWORD = 200
_SHORTEST_PASSWORD = 10
_NAME = re.compile(r"[A-Za-z0-9._-]{3,32}")
_HASHES_AT_ONCE = 4


def name_key(name: str) -> str | None:
    """The form in which a name is unique, or None when it cannot be anybody's name."""
    return name.casefold() if _NAME.fullmatch(name) else None


def checked_name(name: str) -> str:
    """The name as it is stored.

    Raises:
        InvalidInput: the characters or the length do not fit, or it looks like a guest's name.
    """
    name = name.strip()
    if name_key(name) is None:
        raise InvalidInput(_CHARACTERS)
    if name.casefold().startswith(GUEST_PREFIX):
        raise InvalidInput(_GUESTS_NAME, prefix=GUEST_PREFIX)
    return name


def checked_password(password: str, name: str) -> str:
    """The password, when it is fit to protect the account of that name.

    Raises:
        InvalidInput: too short, too long, or equal to the name.
    """
    if len(normalized(password)) < _SHORTEST_PASSWORD:
        raise InvalidInput(_SHORT, least=_SHORTEST_PASSWORD)
    if len(normalized(password)) > LONGEST_PASSWORD:
        raise InvalidInput(_LONG, most=LONGEST_PASSWORD)
    if password.casefold() == name.casefold():
        raise InvalidInput(msg("The password must differ from the name."))
    return password


def normalized(password: str) -> str:
    """The same characters however the keyboard composed them (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


class Passwords:
    """Hashes and checks passwords; a few at a time, because each takes memory and a core.

    The default cost is OWASP's second argon2id choice: 19 MiB, two passes, one lane.
    """

    def __init__(self, *, memory_kib: int = 19_456, passes: int = 2) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._slots = threading.BoundedSemaphore(_HASHES_AT_ONCE)
        self._nobodys = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """The password's argon2id hash with fresh salt, parameters included."""
        with self._slots:
            return self._hasher.hash(normalized(password))

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password belongs to the hash.

        No hash (no such user, or one without a password) costs the same time and is False.
        """
        text = normalized(password[: LONGEST_PASSWORD + 1])
        with self._slots:
            try:
                return self._hasher.verify(stored or self._nobodys, text) and stored is not None
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)
