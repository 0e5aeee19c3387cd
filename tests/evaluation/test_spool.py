"""The list on disk."""

import json
import os

import pytest

from mask2former.evaluation.spool import Spool, write_json_list


@pytest.mark.parametrize("count", [0, 1, 15, 16, 100])
def test_records_come_back_in_order_and_again(count, tmp_path):
    records = [{"image_id": i, "counts": "x" * i} for i in range(count)]
    spool = Spool(str(tmp_path))
    for record in records:
        spool.extend([record])
    assert len(spool) == count
    assert list(spool) == records
    assert list(spool) == records


def test_records_may_follow_after_reading(tmp_path):
    spool = Spool(str(tmp_path))
    spool.extend(range(20))
    assert list(spool) == list(range(20))
    spool.extend(range(20, 50))
    assert list(spool) == list(range(50))


def test_nothing_is_left_in_the_folder(tmp_path):
    spool = Spool(str(tmp_path))
    spool.extend(range(100))
    assert os.listdir(tmp_path) == []
    spool.close()


@pytest.mark.parametrize("entries", [[], [1], [{"a": 1.5}, {"b": ["é", None]}]])
def test_json_list_is_what_json_dump_writes(entries, tmp_path):
    write_json_list(str(tmp_path / "list.json"), iter(entries))
    assert (tmp_path / "list.json").read_text() == json.dumps(entries)
