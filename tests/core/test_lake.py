"""The lake: whole files or none, one winner, and errors that a loop can hold on to."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from understudy.errors import LakeError
from understudy.lake import Lake

NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_what_was_put_is_there_and_what_was_not_is_none(lake: Lake) -> None:
    assert lake.get("a/b.json") is None
    assert lake.get_json("a/b.json") is None
    lake.put_json("a/b.json", {"x": [1]})
    lake.put_json("a/b.json", {"x": [2]})
    assert lake.get_json("a/b.json") == {"x": [2]}
    assert lake.get("a/b.json") == b'{"x":[2]}'


def test_of_many_who_put_if_absent_one_wins_and_its_bytes_stay(lake: Lake) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: lake.put_if_absent("k.json", b"%d" % n), range(40)))
    assert won.count(True) == 1
    assert lake.get("k.json") == b"%d" % won.index(True)
    assert list(lake.keys("")) == ["/k.json"]


def test_writers_leave_no_temporary_files(lake: Lake) -> None:
    lake.put("a.json", b"1")
    lake.put_if_absent("a.json", b"2")
    lake.put_if_absent("b.json", b"2")
    assert sorted(os.listdir(lake.root)) == ["a.json", "b.json"]


def test_keys_are_sorted_and_hide_what_is_not_finished(lake: Lake) -> None:
    for name in ("b.json", "a.json", "c.parquet", "d.json.tmp-123"):
        lake.put(f"f/{name}", b"")
    assert list(lake.keys("f", ".json")) == ["f/a.json", "f/b.json"]
    assert list(lake.keys("f/")) == ["f/a.json", "f/b.json", "f/c.parquet"]
    assert list(lake.keys("none")) == []


def test_damaged_json_is_named(lake: Lake) -> None:
    lake.put("a.json", b"{")
    with pytest.raises(LakeError, match=r"a\.json is no JSON: .*; remove it"):
        lake.get_json("a.json")


def test_a_document_is_read_once_and_a_missing_one_every_time(lake: Lake) -> None:
    reads: list[bytes] = []

    def decode(data: bytes) -> int:
        reads.append(data)
        return int(data)

    with pytest.raises(ValueError, match="invalid literal"):
        lake.once("n", decode)
    lake.put("n", b"7")
    assert [lake.once("n", decode) for _ in range(3)] == [7, 7, 7]
    assert reads == [b"", b"7"]


def test_what_the_system_refuses_becomes_a_lake_error_with_the_path(lake: Lake) -> None:
    lake.put("file", b"")
    with pytest.raises(LakeError, match=r"cannot write .*/file/x"):
        lake.put("file/x", b"")
    with pytest.raises(LakeError, match=r"cannot list .*/file"):
        list(lake.keys("file"))
    lake.put("folder/x", b"")
    with pytest.raises(LakeError, match=r"cannot read .*/folder"):
        lake.get("folder")
    with pytest.raises(LakeError, match=r"cannot write .*/folder"):
        lake.put("folder", b"")
    assert [name for name in os.listdir(lake.root) if "tmp" in name] == []


@NOT_ROOT
def test_a_folder_without_rights_is_a_lake_error(lake: Lake) -> None:
    lake.put("x", b"")
    lake.root.chmod(0o500)
    with pytest.raises(LakeError, match="grant the rights"):
        lake.put("y", b"")
    lake.root.chmod(0o700)


def test_an_object_store_is_refused_by_name() -> None:
    with pytest.raises(LakeError, match="s3:"):
        Lake(Path("s3://bucket/lake"))


def test_a_reader_sees_the_old_document_or_the_new_one(lake: Lake) -> None:
    old, new = b"a" * 100_000, b"b" * 100_000
    lake.put("doc", old)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [lake.put("doc", x) for x in (new, old) * 20])
        seen = {lake.get("doc") for _ in range(300)}
        writing.result()
    assert seen <= {old, new}
