"""Kinto's WSGI application, created here without noise, and the same on every machine."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Protocol, cast
from wsgiref.types import WSGIApplication

from kinto_orm.errors import ConfigurationError, KintoError, MissingExtraError

Setting = str | int | float | bool | None

PREFIX = "kinto."
FLUSH_PLUGIN = "kinto.plugins.flush"
OUR_PLUGIN = "kinto_orm.server.application"
ATOMIC_BATCH_PLUGIN = "kinto_orm.server.atomic_batch"
MEMORY_STORAGE = "kinto.core.storage.memory"

# https://docs.kinto-storage.org/en/stable/configuration/settings.html
DEFAULT_SETTINGS: Mapping[str, Setting] = {
    "includes": "kinto.plugins.default_bucket kinto.plugins.accounts kinto.plugins.history",
    "multiauth.policies": "account basicauth",
    "multiauth.policy.account.use": "kinto.plugins.accounts.AccountsPolicy",
    "account_create_principals": "system.Everyone",
    "experimental_collection_schema_validation": True,
    "experimental_permissions_endpoint": True,
    "storage_backend": "kinto_orm.server.memory.MemoryStorage",
    "permission_backend": "kinto_orm.server.memory.MemoryPermission",
}

# Kinto changes module globals while it starts, and so do we: one start at a time.
_starting = threading.Lock()


class Backend(Protocol):
    """Storage, permission or cache of a Kinto application."""

    def flush(self) -> None:
        """Forget everything but the database schema."""
        ...


class Registry(Protocol):
    """Pyramid's registry, as Kinto fills it; ``own_services`` is ours, and ``calls_are_serialised``, on embedded
    servers only.
    """

    storage: Backend
    permission: Backend
    cache: Backend
    route_prefix: str
    settings: Mapping[str, Any]
    calls_are_serialised: bool
    own_services: list[object]


class Configurator(Protocol):
    """Pyramid's configurator with Kinto's directives, as far as our two plugins need it."""

    registry: Registry

    def add_request_method(self, method: Any, name: str, property: bool) -> None:  # noqa: A002 - Pyramid's name
        """Add an attribute to every request."""
        ...

    def add_api_capability(self, identifier: str, description: str, url: str) -> None:
        """Advertise a capability of this server at the root URL."""
        ...

    def add_tween(self, tween_factory: str, under: str, over: str) -> None:
        """Wrap every request."""
        ...


def merge_settings(
    overrides: Mapping[str, Setting], *, flush: bool, defaults: Mapping[str, Setting]
) -> dict[str, Setting]:
    """Return our settings, overridden by ``defaults`` of the backend, overridden by those of the caller."""
    # Kinto refuses a setting that is given both with and without its prefix.
    given = {name.removeprefix(PREFIX): value for name, value in overrides.items()}
    settings = {**DEFAULT_SETTINGS, **defaults, **given}
    given_plugins = str(settings["includes"]).split()
    # Ours is the first, because it says how the others may run.
    plugins = [OUR_PLUGIN, *given_plugins, *[FLUSH_PLUGIN] * flush, ATOMIC_BATCH_PLUGIN]
    settings["includes"] = " ".join(dict.fromkeys(plugins))
    return settings


def openings(settings: Mapping[str, Setting]) -> list[str]:
    """Return, as sentences without their ends, the rights that a server with these settings gives to anyone."""
    found = ["nothing is encrypted"]
    if "basicauth" in str(settings["multiauth.policies"]).split():
        found.append("any name:password is a user, who may create buckets")
    if "system.Everyone" in str(settings["account_create_principals"]):
        found.append("anybody may create accounts")
    if str(settings.get("cors_origins", "*")).strip() == "*":
        found.append("the pages of every web site may call it")
    return found


def build_application(settings: Mapping[str, Setting]) -> WSGIApplication:
    """Return a Kinto with these settings.

    Raises ``MissingExtraError`` without the extra, and ``ConfigurationError`` where Kinto refuses the settings.
    """
    # As every library should: without a handler, Kinto's errors go to stderr where the user configured no logging.
    logging.getLogger("kinto").addHandler(logging.NullHandler())
    with _starting, quiet():
        kinto = import_extra("kinto")
        before = set(map(id, _services()))
        try:
            with _environment_ignored(), _json_left_alone():
                app = _called_apart(kinto.main, {}, **_without_banner(settings))
        except KintoError:
            raise
        except Exception as error:
            raise ConfigurationError(f"Kinto does not start with these settings: {error!r}") from error
        # Those without a viewset are made once, when modules of Kinto are imported, and belong to all applications.
        own = [one for one in _services() if id(one) not in before and hasattr(one, "viewset")]
        app.registry.own_services = own
        _look_for_config_file()
        # It logs each failed request to the root logger, which would print tracebacks where no logging is configured.
        errors: Any = import_module("kinto.core.views.errors")
        errors.logger = logging.getLogger(errors.__name__)
    return cast(WSGIApplication, app)


def forget(services: Iterable[object]) -> None:
    """Make Kinto forget endpoints: it keeps all that it ever made, megabytes for each application."""
    # Without the lock: the garbage collector may call this while it is held.
    known = _services()
    for service in services:
        with suppress(ValueError):
            known.remove(service)


def _services() -> list[object]:
    services: list[object] = import_module("kinto.core.cornice.service").SERVICES
    return services


def _called_apart(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call the function in another thread and return its result.

    On Python 3.13 something that Kinto starts keeps the frame it was called from, and with it all frames around that:
    a server that was forgotten would never be collected.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments, **keywords).result()


def registry_of(app: WSGIApplication) -> Registry:
    """Return the holder of the backends, which ``kinto.main`` gives its application."""
    return cast(Registry, cast(Any, app).registry)


def backends(app: WSGIApplication) -> tuple[Backend, Backend, Backend]:
    """Return storage, permission and cache of an application built here."""
    registry = registry_of(app)
    return registry.storage, registry.permission, registry.cache


def migrate(app: WSGIApplication) -> None:
    """Create the database schema, or bring it up to date."""
    import_module("kinto.core.scripts").migrate({"registry": registry_of(app)})
    # Some of it only reads, which leaves a transaction of this thread open.
    import_module("transaction").abort()


def drop_connections(app: WSGIApplication, *, close: bool = True) -> None:
    """Forget the connections to PostgreSQL, if there are any; new ones are made when needed."""
    client = getattr(backends(app)[0], "client", None)
    if client is not None:
        client.session_factory.get_bind().dispose(close=close)
        client.session_factory.remove()


def import_extra(module: str, extra: str = "server") -> Any:
    """Return a module of an optional extra.

    Raises ``MissingExtraError`` with the line that installs it.
    """
    try:
        with quiet():
            return import_module(module)
    except ImportError as error:
        message = f"{module} is not installed ({error}): pip install 'kinto-orm[{extra}]'"
        raise MissingExtraError(message, name=module) from error


def includeme(config: Configurator) -> None:
    """Make Kinto an embedded one; Kinto calls this for each plugin.

    Requests parse JSON as Kinto does, without a patch to all of webob. Other plugins see that calls come one by one.
    """
    config.registry.calls_are_serialised = True
    for name in ("json", "json_body"):
        config.add_request_method(read_json, name, property=True)


def read_json(request: Any) -> Any:
    """Return the body of a request, parsed by Kinto's parser: it refuses NaN and keeps 64-bit integers."""
    return import_module("kinto.core.utils").json.loads(request.body.decode(request.charset))


def _without_banner(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Return the settings without the *name* of the memory storage, for which the accounts plugin prints a banner."""
    if settings["storage_backend"] != MEMORY_STORAGE:
        return dict(settings)
    return {**settings, "storage_backend": import_module(MEMORY_STORAGE)}


@contextmanager
def quiet() -> Generator[None]:
    """Silence warnings that do not concern the user: "HTTPS is not enabled", and deprecations in Kinto's imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _environment_ignored() -> Generator[None]:
    """Hide variables like ``KINTO_STORAGE_URL``: an embedded server must never open, nor flush, a real database."""
    utils: Any = import_module("kinto.core.utils")
    original, utils.read_env = utils.read_env, lambda key, value: value
    try:
        yield
    finally:
        utils.read_env = original


@contextmanager
def _json_left_alone() -> Generator[None]:
    """Undo that Kinto puts its parser into webob and requests for the whole process; :func:`includeme` does without."""
    patched = [import_module("webob.request"), import_module("requests.models")]
    before = [vars(module).get("json") for module in patched]
    try:
        yield
    finally:
        for module, original in zip(patched, before, strict=True):
            if original is None:
                vars(module).pop("json", None)
            else:
                vars(module)["json"] = original


def _look_for_config_file() -> None:
    """Have Kinto look for its ini file, as it does once in a process, without the error that it logs."""
    config = import_module("kinto.config")
    disabled, config.logger.disabled = config.logger.disabled, True
    try:
        config.config_attributes()
    finally:
        config.logger.disabled = disabled
