"""Accounts and sessions: ways in, ways out, and the way back to a user from a token.

A session is a random token in a cookie; the database keeps only its SHA-256, an expiry and when it
was revoked. Every way in (password, guest, invite, Hugging Face) ends in a fresh token, so a token
planted beforehand is worth nothing. Knows no HTTP; what admins do is in `administration.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.orm import Session

from backend import account_rows, throttle
from backend.errors import Conflict, InvalidInput, NotAllowed, NotFound, NotSignedIn
from backend.identity import (
    CurrentUser,
    SignedIn,
    describe,
    includes,
    require_role,
    token_hash,
)
from backend.passwords import Passwords, checked_name, checked_password, name_key
from backend.wording import msg
from db.models import User, WebSession
from db.queries import users as queries
from db.session import Database

__all__ = ["Accounts", "CurrentUser", "SignUp", "SignedIn", "require_role"]

SignUp = Literal["open", "invite", "closed"]

_GUEST_SESSION_DAYS = 365  # a guest has no other way back in
_SEEN_EVERY = timedelta(hours=1)
_REMEMBER_BROWSERS = timedelta(days=180)
_WRONG = msg("Name and password do not go together.")


class Accounts:
    """The use cases of a person's own account.

    Args:
        clock: the present moment, aware.
        signup: who may make an account: everybody, holders of an invite, nobody.
        guests: whether guests are let in, while everybody may make an account.
    """

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords,
        clock: Callable[[], datetime],
        signup: SignUp = "open",
        guests: bool = True,
        session_days: int = 30,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._session_days = session_days
        self.signup: SignUp = signup
        self.guests_welcome = guests and signup == "open"

    def sign_up(
        self, username: str, password: str, *, address: str, invite: str | None = None
    ) -> SignedIn:
        """A new account; an invite gives it the invite's role.

        Raises:
            InvalidInput: name or password do not fit. Conflict: the name is taken, or the invite
                was just used. NotFound: no such invite. NotAllowed: sign-up is not open.
            TooManyRequests: too many accounts from this address.
        """
        name = checked_name(username)
        checked_password(password, name)
        now = self._clock()
        with self._database.write() as session:  # refuse before hashing, which is costly
            account_rows.admit(session, self.signup, invite, now)
            account_rows.refuse_taken(session, name)
            throttle.begin(session, {}, throttle.new_account_limits(address), now)
        hashed = self._passwords.hash(password)
        with self._database.write() as session:
            account_rows.admit(session, self.signup, invite, now)
            user = account_rows.add_user(session, now, name, password_hash=hashed)
            if invite is not None:
                account_rows.use_invite(session, invite, user, now)
            return self._open(session, user, now)

    def guest(self, *, address: str) -> SignedIn:
        """A new account without a name of its own, bound to the browser that keeps the token.

        Raises:
            NotAllowed: guests are not let in. TooManyRequests: too many from this address.
        """
        if not self.guests_welcome:
            raise NotAllowed(msg("Guests are not let in here. Please sign in."))
        now = self._clock()
        with self._database.write() as session:
            throttle.begin(session, {}, throttle.new_account_limits(address), now)
            name = account_rows.guest_name(session)
            user = account_rows.add_user(session, now, name, is_guest=True)
            return self._open(session, user, now)

    def claim(
        self, guest_id: int, username: str, password: str, *, invite: str | None = None
    ) -> SignedIn:
        """A guest becomes a full account: same user, same choices, a name and a password.

        Raises:
            InvalidInput, Conflict, NotFound: as `sign_up`; Conflict also when no guest any more.
        """
        name = checked_name(username)
        checked_password(password, name)
        with self._database.read() as session:
            _refuse_full_account(queries.user_by_id(session, guest_id))
            account_rows.refuse_taken(session, name)
        hashed = self._passwords.hash(password)
        now = self._clock()
        with self._database.write() as session:
            user = _usable(queries.user_by_id(session, guest_id, lock=True))
            _refuse_full_account(user)
            account_rows.rename(session, user, name)
            user.password_hash, user.is_guest = hashed, False
            if invite is not None:
                account_rows.use_invite(session, invite, user, now)
            queries.revoke_sessions(session, user.id, now)
            return self._open(session, user, now)

    def sign_in(self, username: str, password: str, *, address: str, browser: str = "") -> SignedIn:
        """A new session for a name and its password.

        Args:
            browser: the `SignedIn.browser` this browser was last given, if any.

        Raises:
            InvalidInput: they do not go together (never says which is wrong).
            NotAllowed: the account is disabled. TooManyRequests: throttled.
        """
        key = name_key(username.strip())
        now = self._clock()
        with self._database.write() as session:
            user = queries.user_by_key(session, key, lock=True) if key else None
            known = user is not None and queries.owner_of_session(session, browser) == user.id
            own, shared = throttle.sign_in_limits(
                username.strip().casefold(), address, browser if known else None
            )
            attempt = throttle.begin(session, own, shared, now)
            stored = user.password_hash if user else None
        if not self._passwords.matches(stored, password) or user is None or stored is None:
            raise InvalidInput(_WRONG)
        outdated = self._passwords.is_outdated(stored)
        fresh = self._passwords.hash(password) if outdated else stored
        with self._database.write() as session:
            user = _usable(queries.user_by_id(session, user.id, lock=True))
            if user.password_hash != stored:
                raise InvalidInput(_WRONG)
            throttle.forgive(session, attempt)
            user.password_hash = fresh
            return self._open(session, user, now)

    def sign_in_hugging_face(
        self,
        subject: str,
        preferred_name: str,
        *,
        address: str,
        guest_id: int | None = None,
        invite: str | None = None,
    ) -> SignedIn:
        """The account of a Hugging Face user (OpenID `sub`): found, claimed by a guest, or new.

        The invite is used up only where the account is new or was a guest's until now.

        Raises:
            NotAllowed: disabled, or sign-up is not open. NotFound, Conflict: the invite is gone.
            TooManyRequests: too many accounts from this address.
        """
        now = self._clock()
        with self._database.write() as session:
            user = queries.user_by_subject(session, subject)
            if user is not None:
                return self._open(session, _usable(user), now)
            guest = queries.user_by_id(session, guest_id, lock=True) if guest_id else None
            name = account_rows.name_like(session, preferred_name)
            if guest is not None and guest.is_guest:
                user = _usable(guest)
                account_rows.rename(session, user, name)
                user.hf_subject, user.is_guest = subject, False
                queries.revoke_sessions(session, user.id, now)
            else:
                account_rows.admit(session, self.signup, invite, now)
                throttle.begin(session, {}, throttle.new_account_limits(address), now)
                user = account_rows.add_user(session, now, name, hf_subject=subject)
            if invite is not None:
                account_rows.use_invite(session, invite, user, now)
            return self._open(session, user, now)

    def accept_invite(self, user_id: int, invite: str) -> CurrentUser:
        """Give a signed-in full account the invite's role.

        Raises:
            NotFound: no such open invite. Conflict: a guest, or the role is there already.
        """
        now = self._clock()
        with self._database.write() as session:
            user = _usable(queries.user_by_id(session, user_id, lock=True))
            if user.is_guest:
                raise Conflict(msg("A guest account needs a name first."))
            if includes(user.role, account_rows.open_invite(session, invite, now).role):
                raise Conflict(msg("Your account can do this already; the invite stays unused."))
            account_rows.use_invite(session, invite, user, now)
            return describe(user)

    def change_password(self, user_id: int, current: str, new: str) -> SignedIn:
        """A new password, every session revoked, and a fresh one for this browser.

        An account that came from Hugging Face and has no password yet gets its first one.

        Raises:
            InvalidInput: the present password is wrong or the new one does not fit.
            Conflict: a guest. TooManyRequests: throttled.
        """
        now = self._clock()
        with self._database.write() as session:
            user = _usable(queries.user_by_id(session, user_id, lock=True))
            if user.is_guest:
                raise Conflict(msg("A guest account needs a name first."))
            checked_password(new, user.username)
            stored = user.password_hash
            attempt = throttle.begin(session, throttle.password_change_limits(user_id), {}, now)
        if stored is not None and not self._passwords.matches(stored, current):
            raise InvalidInput(msg("The present password is not right."))
        hashed = self._passwords.hash(new)
        with self._database.write() as session:
            user = _usable(queries.user_by_id(session, user_id, lock=True))
            if user.password_hash != stored:
                raise Conflict(msg("The password was changed in another window."))
            throttle.forgive(session, attempt)
            user.password_hash = hashed
            queries.revoke_sessions(session, user.id, now)
            return self._open(session, user, now)

    def simulated(self, username: str, persona: dict[str, Any]) -> CurrentUser:
        """The account of a persona, found or new: no password, no session, no way in.

        Args:
            persona: what the row says of it from now on.

        Raises:
            NotAllowed: disabled. Conflict: a person has this name, or it was made this moment.
        """
        now = self._clock()
        with self._database.write() as session:
            user = queries.user_by_key(session, username.casefold(), lock=True)
            if user is None:
                user = account_rows.add_user(session, now, username, persona=persona)
            if not user.is_simulated:
                raise Conflict(f"{username} is a person's account.")
            if user.disabled_at is not None:
                raise NotAllowed(f"The account '{username}' is disabled.")
            user.persona, user.seen_at = persona, now
            return describe(user)

    def sign_out(self, token: str) -> None:
        """Revoke the session; an unknown one is as good as gone."""
        with self._database.write() as session:
            queries.revoke_session(session, token_hash(token), self._clock())

    def user_for_token(self, token: str) -> CurrentUser | None:
        """The user of a live session, or None."""
        now = self._clock()
        with self._database.read() as session:
            user = queries.user_by_token(session, token_hash(token), now)
        if user is None:
            return None
        if user.seen_at is None or now - user.seen_at > _SEEN_EVERY:
            with self._database.write() as session:
                queries.touch_user(session, user.id, now)
        return describe(user)

    def user(self, user_id: int) -> CurrentUser:
        """The user of an id that a session has vouched for.

        Raises:
            NotSignedIn: gone or disabled since.
        """
        with self._database.read() as session:
            user = queries.user_by_id(session, user_id)
        if user is None or user.disabled_at is not None:
            raise NotSignedIn(msg("Please sign in again."))
        return describe(user)

    def tidy(self) -> None:
        """Forget what no longer matters: old failures, sessions that ended long ago."""
        now = self._clock()
        with self._database.write() as session:
            queries.delete_failures(session, now - timedelta(seconds=throttle.LONGEST_WINDOW_S))
            queries.delete_sessions(session, now - _REMEMBER_BROWSERS)

    def choose_language(self, user_id: int, code: str) -> None:
        """This user reads all pages in the language; empty: as the browser says.

        Raises:
            NotFound, NotAllowed: no such account, or disabled.
        """
        with self._database.write() as session:
            _usable(queries.user_by_id(session, user_id, lock=True)).language = code

    def _open(self, session: Session, user: User, now: datetime) -> SignedIn:
        token = secrets.token_urlsafe(32)
        days = _GUEST_SESSION_DAYS if user.is_guest else self._session_days
        user.seen_at = now
        session.add(
            WebSession(
                token_hash=token_hash(token),
                user_id=user.id,
                created_at=now,
                expires_at=now + timedelta(days=days),
            )
        )
        return SignedIn(describe(user), token, token_hash(token), days * 24 * 3600)


def _usable(user: User | None) -> User:
    if user is None:
        raise NotFound(msg("There is no such account."))
    if user.disabled_at is not None:
        raise NotAllowed(msg("This account is disabled."))
    return user


def _refuse_full_account(user: User | None) -> None:
    if user is None or not user.is_guest:
        raise Conflict(msg("This account already has a name."))
