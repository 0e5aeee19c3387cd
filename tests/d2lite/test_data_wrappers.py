"""Data-set wrappers: lists, mapping, grouping, walking; and helpers over lists of records."""

import logging
import pickle

import numpy as np
import pytest
from torch.utils.data import IterableDataset

import detectron2
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import load_proposals_into_dataset, print_instances_class_histogram
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.data.samplers import InferenceSampler

only_d2lite = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="d2lite's own guarantee"
)
# Wide and tall images in an irregular order.
RECORDS = [{"image_id": i, "width": 10 + 2 * (i * i % 3), "height": 11} for i in range(9)]


@pytest.mark.parametrize("serialize", [True, False])
def test_a_list_hands_out_copies(serialize):
    records = [{"x": [1]}, {"x": [2]}]
    dataset = DatasetFromList(records, copy=True, serialize=serialize)
    dataset[1]["x"].append(3)
    assert dataset[1] == {"x": [2]} and records[1] == {"x": [2]} and len(dataset) == 2


def test_a_serialized_list_indexes_like_a_list():
    dataset = DatasetFromList(list("abc"))
    assert [dataset[i] for i in range(3)] == ["a", "b", "c"] == list(dataset)


def test_a_list_can_be_stored_by_a_function():
    assert DatasetFromList([1, 2], serialize=lambda lst: [x * 10 for x in lst])[1] == 20


def test_mapping_none_tries_another_record(caplog):
    caplog.set_level(logging.WARNING)
    dataset = MapDataset(DatasetFromList(list(range(10))), lambda x: x if x == 7 else None)
    assert [dataset[i] for i in (0, 7, 3)] == [7, 7, 7]
    assert caplog.records


def test_failed_records_are_not_drawn_again():
    seen = []

    def only_last(x):
        seen.append(x)
        return x if x == 4 else None

    dataset = MapDataset(DatasetFromList(list(range(5)), serialize=False, copy=False), only_last)
    for i in range(5):
        dataset[i]
    # Every record fails once by request, and is then never chosen as a substitute.
    assert all(seen.count(x) <= 2 for x in range(4))


@only_d2lite
def test_mapping_everything_to_none_is_an_error():
    dataset = MapDataset(DatasetFromList([1, 2]), lambda x: None)
    with pytest.raises(RuntimeError, match="all 2 records"):
        dataset[0]


class Counting(IterableDataset):
    def __iter__(self):
        return iter(range(6))


def test_iterable_data_sets_skip_none():
    assert list(MapDataset(Counting(), lambda x: x if x % 2 else None)) == [1, 3, 5]


def test_grouping_never_mixes_and_drops_the_rest():
    grouped = AspectRatioGroupedDataset(RECORDS, 2)
    got = [[(d["image_id"], d["width"] > d["height"]) for d in batch] for batch in grouped]
    assert all(len(batch) == 2 and batch[0][1] == batch[1][1] for batch in got)
    wide = [d["image_id"] for d in RECORDS if d["width"] > d["height"]]
    tall = [d["image_id"] for d in RECORDS if d["width"] <= d["height"]]
    flat = [i for batch in got for i, _ in batch]
    assert [i for i in flat if i in wide] == wide[: len(wide) // 2 * 2]
    assert [i for i in flat if i in tall] == tall[: len(tall) // 2 * 2]


def test_a_walk_along_a_sampler_is_what_the_sampler_says():
    assert list(ToIterableDataset(DatasetFromList(list("abc")), InferenceSampler(3))) == [
        "a",
        "b",
        "c",
    ]


def test_the_class_histogram_counts_and_checks(caplog):
    caplog.set_level(logging.INFO)
    annotations = [{"category_id": c} for c in (0, 1, 1)] + [{"category_id": 0, "iscrowd": 1}]
    print_instances_class_histogram([{"annotations": annotations}], ["cat", "dog", "a long name!!"])
    assert "cat" in caplog.text and "total" in caplog.text and "3" in caplog.text
    with pytest.raises(AssertionError, match="category_id=2"):
        print_instances_class_histogram([{"annotations": [{"category_id": 2}]}], ["a", "b"])


def test_proposals_are_sorted_by_score(tmp_path):
    path = tmp_path / "proposals.pkl"
    boxes = [np.array([[0, 0, 1, 1], [0, 0, 2, 2]], dtype=np.float32)]
    scores = [np.array([0.1, 0.9], dtype=np.float32)]
    path.write_bytes(
        pickle.dumps({"ids": [1], "boxes": boxes, "objectness_logits": scores, "bbox_mode": 0})
    )
    first, second = load_proposals_into_dataset([{"image_id": 1}, {"image_id": 2}], str(path))
    assert first["proposal_boxes"][0].tolist() == [0, 0, 2, 2]
    assert "proposal_boxes" not in second
