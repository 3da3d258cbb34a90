"""The models: buckets, groups, collections, records, accounts, and the managers that list and create them."""

from kinto_orm.models.expressions import F
from kinto_orm.models.field_types import OrderedText
from kinto_orm.models.kinds import (
    Account,
    Bucket,
    Collection,
    Group,
    Record,
    account_reference,
    bucket_reference,
    holders_of,
    load_target,
    schema_of,
)
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.managers import Manager, RecordManager, manager_of
from kinto_orm.models.permissions import Permissions

__all__ = [
    "Account",
    "Bucket",
    "Collection",
    "F",
    "Group",
    "KintoObject",
    "Manager",
    "OrderedText",
    "Permissions",
    "Record",
    "RecordManager",
    "account_reference",
    "bucket_reference",
    "holders_of",
    "load_target",
    "manager_of",
    "schema_of",
]
