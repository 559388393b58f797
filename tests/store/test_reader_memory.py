"""However large the database, what was read of it does not stay in the runner's resident memory."""

import sys
from pathlib import Path

import pytest

from kvt_async.contract.schema import connect_for_writing
from kvt_async.store.reader import Reader
from tests.group_db import DATASET, make_group

N, MIB = 64, 1 << 20


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_prompts_that_were_read_are_not_kept(tmp_path: Path) -> None:
    db = tmp_path / "k.sqlite"
    make_group(db, 1)
    conn = connect_for_writing(db)
    conn.execute("BEGIN")
    for i in range(1, N):
        conn.execute("INSERT INTO examples VALUES (?,?,'',?,'[]','{}',?)", (DATASET, f"e{i}", "x" * MIB, f"c{i}"))
        conn.execute("INSERT INTO manifest_entries VALUES (?,?,?,1,0,9,9,9,0,'p')", (DATASET, f"e{i}", i))
    conn.execute("COMMIT")
    conn.close()
    reader = Reader(db)
    before = resident_mib()
    for seq in range(1, N):
        (entry,) = reader.entries(DATASET, [seq]).values()
        assert len(entry.example.context) == MIB
    after = resident_mib()
    reader.close()
    assert after - before < N / 4
