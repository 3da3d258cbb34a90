"""The model of the records of main/iso-codes, as its JSON schema describes them.

Written by kinto-orm models pull main/iso-codes: pull it again rather than change it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kinto_orm import Record


class Node(BaseModel):
    model_config = ConfigDict(extra="allow")

    children: list[Node] | None = None


class IsoCodesAddress(BaseModel):
    model_config = ConfigDict(extra="allow")

    city: str
    zip_code: str | None = Field(default=None, validation_alias="zip code", serialization_alias="zip code")


class IsoCodes(Record, bucket="main", collection="iso-codes"):
    n: int
    # What is to be done
    title: str
    a_b_: Any = Field(default=None, validation_alias="a-b", serialization_alias="a-b")
    a_b: Literal[1] | None = None
    address: IsoCodesAddress | None = None
    all: str | None = None
    class_: str | None = Field(default=None, validation_alias="class", serialization_alias="class")
    done: bool = False
    due_date: str | None = Field(default=None, validation_alias="due-date", serialization_alias="due-date")
    either: int | str | None = None
    gr__e: float = Field(default=1.5, validation_alias="größe", serialization_alias="größe")
    kind: Literal["a", "b"] | None = None
    limits: dict[str, float] | None = None
    pair: list[Any] | None = None
    save_: str | None = Field(default=None, validation_alias="save", serialization_alias="save")
    str_: str | None = Field(default=None, validation_alias="str", serialization_alias="str")
    tags: list[str] = []
    tree: Node | None = None
