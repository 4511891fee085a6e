"""The record: declared once, documented, and able to grow."""

from pathlib import Path

import msgspec

from understudy.exchange import COLUMNS, Feedback, RequestMeta, ResponseMeta, data_dictionary

REQUIRED = {
    "exchange_id": "x",
    "attempt_id": "a",
    "arm": "teacher",
    "role": "served",
    "served": True,
    "requested_at": 1,
    "endpoint": "chat.completions",
}


def test_the_data_dictionary_is_in_the_docs() -> None:
    written = (Path(__file__).parents[2] / "docs" / "data-dictionary.md").read_text()
    assert data_dictionary() in written


def test_every_column_has_one_name_and_a_sentence() -> None:
    names = [column.name for column in COLUMNS]
    assert len(names) == len(set(names))
    assert all(column.about for column in COLUMNS)


def test_what_frames_carry_has_a_column() -> None:
    columns = {column.name for column in COLUMNS}
    not_stored = {"level", "content_type", "content_encoding", "chunks", "at"}
    for kind in (RequestMeta, ResponseMeta, Feedback):
        assert set(kind.__struct_fields__) - columns <= not_stored


def test_a_frame_of_a_newer_writer_is_read_without_what_is_unknown() -> None:
    newer = msgspec.json.encode({**REQUIRED, "invented_later": [1, 2]})
    meta = msgspec.json.decode(newer, type=RequestMeta)
    assert meta.exchange_id == "x"


def test_a_frame_of_an_older_writer_gets_the_defaults() -> None:
    meta = msgspec.json.decode(msgspec.json.encode(REQUIRED), type=RequestMeta)
    assert (meta.level, meta.train_ok, meta.policy_version) == ("full", True, 0)
