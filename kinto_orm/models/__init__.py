"""What users hold: buckets, groups, collections, records, accounts, and the managers that list and create them."""

from kinto_orm.models.account import Account, account_reference
from kinto_orm.models.expressions import F
from kinto_orm.models.kinds import Bucket, Collection, Group, Record, bucket_reference
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.managers import Manager, manager_of
from kinto_orm.models.permissions import Permissions
from kinto_orm.models.record_manager import RecordManager

__all__ = [
    "Account",
    "Bucket",
    "Collection",
    "F",
    "Group",
    "KintoObject",
    "Manager",
    "Permissions",
    "Record",
    "RecordManager",
    "account_reference",
    "bucket_reference",
    "manager_of",
]
