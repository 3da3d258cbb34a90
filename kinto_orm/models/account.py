"""Accounts: users that Kinto itself knows, with a password that is written and never read.

https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import ConfigDict, Field, SecretStr, SerializationInfo, field_serializer

from kinto_orm.errors import NotBoundError
from kinto_orm.models.arguments import Settable, argument
from kinto_orm.models.fields import WIRE
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import reference
from kinto_orm.protocol.endpoints import Kind, ObjectPath
from kinto_orm.state import Runner


class Account(KintoObject):
    """A user, known by ``id`` (a name, or an e-mail address) and password: ``Account(id="alexis", password="…")``.

    The password can be set and saved, and does not show: not in ``data``, a dump, a pickle or a log. The server's hash
    of it is taken out of each answer, so ``password`` is ``None`` again once it is saved. Stands for the principal
    ``account:<id>`` in permissions. Its verbs raise ``CapabilityMissingError`` where the server has no accounts.
    https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    __kinto_kind__: ClassVar[Kind] = Kind.ACCOUNT

    if TYPE_CHECKING:
        password: Settable[SecretStr | None, SecretStr | str | None] = argument(default=None)
    else:
        password: SecretStr | None = Field(default=None, repr=False)

        @field_serializer("password")
        def _serialize_password(self, password: SecretStr | None, info: SerializationInfo) -> Any:
            if password is None:
                return None
            if info.context is WIRE:
                return password.get_secret_value()
            return str(password) if info.mode_is_json() else password

    def __kinto_principal__(self) -> str:
        return f"account:{self.__kinto_path__().id}"

    def __kinto_path__(self, *, draw: bool = False) -> ObjectPath:
        if self.__dict__["id"] is None:
            raise NotBoundError("This account has no id, and none is drawn for it: construct it with id=….")
        return super().__kinto_path__(draw=draw)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        state["__dict__"] = {**state["__dict__"], "password": None}
        state["__pydantic_fields_set__"] = state["__pydantic_fields_set__"] - {"password"}
        return state


def account_reference(id: str, client: Runner) -> Account:
    """A reference to the account of that id."""
    return cast(Account, reference(Account, id, client, None))
