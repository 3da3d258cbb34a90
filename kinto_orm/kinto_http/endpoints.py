"""The paths of the named endpoints."""

from __future__ import annotations

from typing import Any, ClassVar

from kinto_orm.errors import InvalidIdError
from kinto_orm.kinto_http.exceptions import KintoException
from kinto_orm.protocol import paths
from kinto_orm.protocol.paths import ENDPOINTS, check_id


class Endpoints:
    """The paths below ``root``. Ids are validated, never rewritten."""

    endpoints: ClassVar[dict[str, str]] = {name: f"{{root}}{pattern}" for name, pattern in ENDPOINTS.items()}
    """The patterns by name."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def get(self, endpoint: str, **kwargs: Any) -> str:
        """Return the path of that endpoint; raise ``KintoException`` for a missing or invalid id."""
        try:
            names = paths.endpoint_ids(endpoint)
            missing = [name for name in names if kwargs.get(name) is None]
            if missing:
                raise KintoException(f"Cannot get {endpoint} endpoint, {','.join(missing)} is missing")
            return self._root + paths.endpoint(endpoint, **{name: as_id(kwargs[name], name) for name in names})
        except InvalidIdError as error:
            raise KintoException(f"Cannot get {endpoint} endpoint: {error}") from error


def as_id(value: Any, what: str = "id") -> str:
    """Return the id as text; numbers are taken too, as the reference client does."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return check_id(value, what)
