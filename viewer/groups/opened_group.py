"""A group opened to be looked at: nothing is made in its folder."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from analyzer.read.group_connection import open_group, open_members
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.shards.group_databases import group_databases
from viewer.groups.group_places import GroupPlace


@contextmanager
def opened_group(place: GroupPlace) -> Iterator[sqlite3.Connection]:
    """A connection to the group, its shards with it. Of shards without a database of the group's own, an empty one in
    a folder that goes away takes its place."""
    if place.db.is_file():
        with closing(open_group(place.db)) as conn:
            yield conn
        return
    with TemporaryDirectory(prefix="kvt-view-") as folder:
        own = Path(folder) / DB_NAME
        connect_for_writing(own).close()
        with closing(open_members(own, group_databases(place.db))) as conn:
            yield conn
