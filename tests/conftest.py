"""What all tests share: the Hypothesis profiles, and a bucket with a collection on a real Kinto in this process.

``kinto_server`` and ``kinto_client`` come from our own pytest plugin: we are its first user.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from kinto_orm import Bucket, Client, Collection, Record

_SLOW_SERVER = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=10, **_SLOW_SERVER)
settings.register_profile("ci", max_examples=50, derandomize=True, **_SLOW_SERVER)
settings.register_profile("nightly", max_examples=500, **_SLOW_SERVER)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def payments(kinto_client: Client) -> Bucket:
    """A bucket on the server."""
    return Bucket(id="payments", client=kinto_client).save()


@pytest.fixture
def todos(payments: Bucket) -> Collection[Record]:
    """A collection on the server."""
    return Collection(bucket=payments, id="todos").save()
