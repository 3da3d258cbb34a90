"""Models of the ISO codes, and the real data: ISO 3166 and ISO 639-3, from the package ``pycountry``.

The models declare some keys; ``extra="allow"`` takes the others of the source, such as ``flag``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pycountry
from pydantic import ConfigDict, Field

from kinto_orm import Record

BUCKET = "iso-codes"


class Country(Record, bucket=BUCKET, collection="countries"):
    """A country of ISO 3166-1; its id is the two-letter code."""

    model_config = ConfigDict(extra="allow")

    alpha_2: str
    alpha_3: str
    name: str
    official_name: str | None = None
    visits: int = 0


class Subdivision(Record, bucket=BUCKET, collection="subdivisions"):
    """A part of a country, of ISO 3166-2; its id is its code, such as ``IT-21``.

    ``part_of`` is our name: the source says ``parent_code``, and the demo renames it on the server.
    """

    model_config = ConfigDict(extra="allow")

    code: str
    name: str
    kind: str = Field(validation_alias="type", serialization_alias="type")
    country: str = Field(validation_alias="country_code", serialization_alias="country_code")
    part_of: str | None = None


class Language(Record, bucket=BUCKET, collection="languages"):
    """A language of ISO 639-3; its id is the three-letter code."""

    model_config = ConfigDict(extra="allow")

    alpha_3: str
    name: str
    alpha_2: str | None = None
    kind: str = Field(validation_alias="type", serialization_alias="type")


class Trip(Record, bucket=BUCKET, collection="trips"):
    """The subject of the unit of work."""

    title: str
    stops: list[str]


def read_countries() -> Iterator[dict[str, str]]:
    """Return the countries, with their ids; the keys that the model does not declare are stored, too."""
    for entry in pycountry.countries:
        yield {"id": entry.alpha_2, **dict(entry)}


def read_subdivisions() -> Iterator[dict[str, str]]:
    """Return the subdivisions, with their ids."""
    for entry in pycountry.subdivisions:
        given = {key: value for key, value in dict(entry).items() if value is not None and key != "parent"}
        yield {"id": entry.code, **given}


def read_languages() -> Iterator[dict[str, str]]:
    """Return the languages, with their ids."""
    for entry in pycountry.languages:
        yield {"id": entry.alpha_3, **dict(entry)}
