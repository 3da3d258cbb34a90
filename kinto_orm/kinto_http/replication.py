"""Replication of one collection to another: ``python -m kinto_orm.kinto_http.replication --help``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from kinto_orm.kinto_http import cli_utils
from kinto_orm.kinto_http.client import Client
from kinto_orm.kinto_http.utils import collection_diff

logger = logging.getLogger("kinto_http")


def replicate(origin: Client, destination: Client) -> None:
    """Copy the differences, and delete the records that the origin deleted; create bucket and collection if missing.

    Records that only the destination has stay. Permissions of records, groups and attachments are not copied.
    """
    logger.info("Replication from %r to %r", origin, destination)
    destination.create_bucket(if_not_exists=True)
    collection = origin.get_collection()
    destination.create_collection(
        data={key: value for key, value in collection["data"].items() if key != "id"},
        permissions=collection["permissions"] or None,
        if_not_exists=True,
    )
    everything = origin.get_records(_since=0)  # with the tombstones
    deleted = {record["id"] for record in everything if record.get("deleted") is True}
    there = destination.get_records()
    to_create, to_update, _ = collection_diff([one for one in everything if one["id"] not in deleted], there)
    changed = [*to_create, *(new for _, new in to_update)]
    logger.info("replication of %d records", len(changed))
    with destination.batch() as batch:
        for record in changed:
            batch.update_record(data=record, safe=False)
        for record in there:
            if record["id"] in deleted:
                batch.delete_record(id=record["id"], if_match=record["last_modified"])


def get_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments of the command: the usual options are the destination's."""
    parser = argparse.ArgumentParser(description="Migrate data from one kinto instance to another one.")
    add = parser.add_argument
    add("-o", "--origin", dest="origin_server", help="The location of the origin server (with prefix)", required=True)
    add(
        "--origin-auth",
        help="The origin authentication credentials. Will use the same as the remote if omitted",
        action=cli_utils.AuthAction,
    )
    add("--origin-bucket", help="The name of the origin bucket. Will use the same as the remote if omitted")
    add("--origin-collection", help="The name of the origin collection. Will use the same as the remote if omitted")
    return cli_utils.add_parser_options(parser).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_arguments(argv)
    cli_utils.setup_logger(logger, args)
    destination = cli_utils.create_client_from_args(args)
    origin = Client(
        server_url=args.origin_server,
        auth=args.origin_auth or args.auth,
        bucket=args.origin_bucket or destination.bucket_name,
        collection=args.origin_collection or destination.collection_name,
    )
    replicate(origin, destination)


if __name__ == "__main__":  # pragma: no cover  runs in another process
    main()
