"""Credentials that expire: fetched once, however many threads ask, and again after the server refused them.

A 401 says that nothing was applied, so the request is sent again, once, with new credentials.
https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import from_json
from requests import PreparedRequest

from kinto_orm.errors import LoginFailedError
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.transport.auth import BearerTokenAuth

logger = logging.getLogger("kinto_orm")


class Renewable(Protocol):
    """An auth object that can get new credentials: any callable object with this method."""

    def renew(self, refused: PreparedRequest) -> bool:
        """Return whether the next request may have other credentials than this one, which was answered with a 401.

        Gets none by itself: it drops the old ones, unless another thread has done that already.
        """
        ...


def renewed(request: Request, response: Response, auth: object, sent: PreparedRequest | None) -> Response:
    """Return the response, marked where it was refused and the request may be sent again with new credentials."""
    renew: Callable[[Any], bool] | None = getattr(auth, "renew", None)
    if renew is None or 401 not in (statuses := _statuses(request, response)) or not _renews(renew, sent):
        return response
    # Kinto treats unknown credentials as anonymous: a part of a batch may have been applied all the same.
    is_whole = all(status == 401 for status in statuses)
    return response._replace(asks_for_login=True) if is_whole or not request.is_write else response


def _renews(renew: Callable[[Any], bool], sent: PreparedRequest | None) -> bool:
    try:
        return renew(sent)
    except Exception as error:  # noqa: BLE001  its traceback could hold a secret, so it is not logged
        # The answer must not get lost for it: a part of a batch may have been applied.
        logger.warning("renew() of the auth object raised %s: the credentials stay", type(error).__name__)
        return False


def _statuses(request: Request, response: Response) -> list[int]:
    """Return the status of the response, or those of the answers inside a batch."""
    if response.status != 200 or request.path != "/batch" or b"401" not in response.body:
        return [response.status]
    try:
        return [answer["status"] for answer in from_json(response.body)["responses"]]
    except (ValueError, KeyError, TypeError):
        return [response.status]  # what is wrong with it is said where it is read


@dataclass(slots=True, eq=False, repr=False)
class _Kept:
    auth: BearerTokenAuth
    until: float
    is_refused: bool = False


@dataclass(slots=True, eq=False, repr=False)
class TokenStore:
    """The tokens of one auth object, by their use; ``ttl`` is their lifetime, in seconds.

    In memory only. A thread that asks while a token is being fetched waits, and gets that token, or its error.
    """

    ttl: float = math.inf
    clock: Callable[[], float] = time.monotonic
    _kept: dict[Hashable, _Kept] = field(default_factory=dict)
    _flights: dict[Hashable, Future[BearerTokenAuth]] = field(default_factory=dict)

    def get(self, key: Hashable, fetch: Callable[[], BearerTokenAuth]) -> BearerTokenAuth:
        """Return the token, fetched where there is no valid one. Raises ``LoginFailedError``."""
        found = self._good(key)
        if found is not None:
            return found
        # No lock: one that another thread held at a fork would stay locked in the child for ever. For the same
        # reason, what another process was fetching is not waited for.
        mine: Future[BearerTokenAuth] = Future()
        flight = self._flights.setdefault((os.getpid(), key), mine)
        if flight is mine:
            return self._fly(key, fetch, mine)
        try:
            return flight.result()
        except LoginFailedError as error:
            raise LoginFailedError(*error.args) from error.__cause__

    def _fly(
        self, key: Hashable, fetch: Callable[[], BearerTokenAuth], flight: Future[BearerTokenAuth]
    ) -> BearerTokenAuth:
        try:
            found = self._good(key)  # another thread may have landed between the two questions
            if found is None:
                found = fetch()
                self._kept[key] = _Kept(found, self.clock() + self.ttl)
            flight.set_result(found)
        except BaseException as error:
            # Ctrl-C is for one thread; those that wait for it shall hear of it all the same.
            shared = error if isinstance(error, Exception) else LoginFailedError("The login was interrupted.")
            flight.set_exception(shared)
            raise
        finally:
            del self._flights[os.getpid(), key]
        return found

    def _good(self, key: Hashable) -> BearerTokenAuth | None:
        kept = self._kept.get(key)
        if kept is None or kept.is_refused or kept.until <= self.clock():
            return None
        return kept.auth

    def refuse(self, key: Hashable, refused: PreparedRequest) -> None:
        """Drop the token, if it is the one of this request; a newer one stays."""
        kept = self._kept.get(key)
        if kept is not None and refused.headers.get("Authorization") == kept.auth.reveal():
            kept.is_refused = True  # not taken out: another thread may just have put in a new one
