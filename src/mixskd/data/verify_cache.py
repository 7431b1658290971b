"""The results of verification in the user's cache folder, so that a later start opens no image file."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from mixskd.runtime.files import in_user_cache, locked

# Size in bytes, time of the last change in ns, width times height (0 if unreadable), and BLAKE2b of the bytes.
FILE = np.dtype([("size", "<i8"), ("time", "<i8"), ("pixels", "<i8"), ("digest", "V16")])
APPLICATION, VERSION = 0x6D69786B, 1  # stored in the file, which is rebuilt if they differ
JUST_CHANGED = 2_000_000_000  # ns; such a file may change again without another time of change
T = TypeVar("T")

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS folders (folder BLOB, checked REAL, names BLOB, files BLOB, digest BLOB);
CREATE INDEX IF NOT EXISTS by_folder ON folders (folder);
CREATE TABLE IF NOT EXISTS shards (path BLOB PRIMARY KEY, stamp TEXT, members BLOB, digest BLOB);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


def cache_file() -> Path:
    """The file that ``MIXSKD_VERIFIED`` names, or ``verified.sqlite`` in the user's cache folder."""
    return in_user_cache("verified.sqlite", "MIXSKD_VERIFIED")


class VerifyCache:
    """Readable image files and indexes of shards, in an SQLite file that many processes may read.

    ``kind`` keeps apart what was read in different ways. A damaged or foreign file is replaced by an empty one. If the
    file cannot be used, nothing is known and nothing is stored. Either is a line in ``notes``.
    """

    def __init__(self, kind: str = "") -> None:
        self.kind = os.fsencode(f":{kind}" if kind else "")
        self.path, self.notes = cache_file(), list[str]()
        self._connection: sqlite3.Connection | None = None
        self._use(lambda _: None)

    def files(self, folder: str, since: float = 0) -> tuple[list[bytes], np.ndarray]:
        """Names and :data:`FILE` records of the files in ``folder`` that were verified after ``since`` (Unix time).

        Of a name that comes twice, the last record is the newest.
        """
        rows = self._use(
            lambda c: c.execute(
                "SELECT names, files, digest FROM folders WHERE folder = ? AND checked >= ? ORDER BY rowid",
                (self._folder(folder), since),
            ).fetchall()
        )
        names, records = list[bytes](), [np.empty(0, FILE)]
        for joined, found, digest in rows or ():
            if digest == _digest(joined, found):
                names += joined.split(b"\0")
                records.append(np.frombuffer(found, FILE))
        return names, np.concatenate(records)

    def add_files(self, folder: str, names: list[bytes], records: np.ndarray) -> None:
        """Store the ``records`` (:data:`FILE`) of the files ``names``, which were just found readable."""
        old = records["time"] < time.time_ns() - JUST_CHANGED
        joined, found = b"\0".join(np.array(names, object)[old].tolist()), records[old].tobytes()
        if found:
            row = (self._folder(folder), time.time(), joined, found, _digest(joined, found))
            self._use(lambda c: c.execute("INSERT INTO folders VALUES (?, ?, ?, ?, ?)", row))

    def merge(self, folder: str) -> None:
        """Store all records of ``folder`` in one row, without those that are replaced by newer ones."""
        names, records = self.files(folder)
        last = {name: i for i, name in enumerate(names)}
        joined, found = b"\0".join(last), records[list(last.values())].tobytes()
        key = self._folder(folder)

        def replace(connection: sqlite3.Connection) -> None:
            rows, oldest = connection.execute(
                "SELECT count(*), min(checked) FROM folders WHERE folder = ?", (key,)
            ).fetchone()
            if rows > 1:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("DELETE FROM folders WHERE folder = ?", (key,))
                    row = (key, oldest, joined, found, _digest(joined, found))
                    connection.execute("INSERT INTO folders VALUES (?, ?, ?, ?, ?)", row)

        self._use(replace)

    def shard(self, path: Path, stamp: str) -> bytes | None:
        """What :meth:`add_shard` stored for the tar file ``path`` with the same ``stamp`` (sizes and times)."""
        row = self._use(
            lambda c: c.execute(
                "SELECT members, digest FROM shards WHERE path = ? AND stamp = ?", (_key(path), stamp)
            ).fetchone()
        )
        return row[0] if row is not None and row[1] == _digest(row[0]) else None

    def add_shard(self, path: Path, stamp: str, members: bytes) -> None:
        """Store the index ``members`` of the tar file ``path``."""
        row = (_key(path), stamp, members, _digest(members))
        self._use(lambda c: c.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", row))

    @contextmanager
    def only_writer(self, wait_note: Callable[[], None]) -> Iterator[None]:
        """Wait until no other process verifies; ``wait_note`` is called if one does."""
        with ExitStack() as stack:
            with suppress(OSError):  # some file systems have no locks: then several processes may do the same work
                lock = self.path.with_suffix(".lock")
                if not stack.enter_context(locked(lock, wait=False)):
                    wait_note()
                    stack.enter_context(locked(lock))
            yield

    def _folder(self, folder: str) -> bytes:
        return _key(folder) + self.kind

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _use(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of ``action``, or None if the file cannot be used."""
        for attempt in range(2):
            try:
                self._connection = self._connection or self._open()
                return action(self._connection)
            except (sqlite3.OperationalError, OSError) as error:
                self._note(f"{self.path} cannot be used ({error}); images may be verified again at the next start")
                break
            except sqlite3.DatabaseError:
                self.close()
                if attempt == 0:
                    self._note(f"{self.path} was damaged or of another version; it is built anew")
                    with suppress(OSError):
                        self.path.unlink()
        return None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            about = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            if about != [APPLICATION, VERSION]:
                if about != [0, 0] or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("it is another program's")
                connection.executescript(SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _key(path: str | Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
