"""The constants of the reference client, by their names."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.writes import ABSENT

kinto_http_version = "11.11.0"
"""The version of the reference client whose names these are."""

requests_version = metadata.version("requests")

python_version = platform.python_version()

USER_AGENT = f"kinto_http/{kinto_http_version} requests/{requests_version} python/{python_version}"
"""The sender that every request names."""

OBJECTS_PERMISSIONS = {kind.value: list(kind.permissions) for kind in Kind}
"""The names of the permissions of each kind of object."""

ID_FIELD = "id"

DO_NOT_OVERWRITE = ABSENT.headers
"""The precondition of a safe creation."""

VALID_SLUG_REGEXP = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$")

# What the tests of the reference client take from here, and so those of its users may.
SERVER_URL = "http://localhost:8888/v1"
DEFAULT_AUTH = ("user", "p4ssw0rd")
ALL_PARAMETERS = [
    ["-h", "--help"],
    ["-s", "--server"],
    ["-a", "--auth"],
    ["-b", "--bucket"],
    ["-c", "--collection"],
    ["--retry"],
    ["--retry-after"],
    ["--ignore-batch-4xx"],
    ["-v", "--verbose"],
    ["-q", "--quiet"],
    ["-D", "--debug"],
]
