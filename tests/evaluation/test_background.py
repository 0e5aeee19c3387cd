"""Work beside the network: results in order, errors with the image, bounded memory."""

import threading

import pytest
from evaluation.small_sets import CASES, score

from mask2former.evaluation import background
from mask2former.evaluation.background import Background


@pytest.fixture
def kept():
    return []


def test_results_come_in_the_order_of_the_images(kept):
    second_is_done = threading.Event()

    def work(number):
        if number == 0:
            assert second_is_done.wait(20)
        if number == 1:
            second_is_done.set()
        return number

    work_beside = Background(kept.append)
    for number in range(20):
        work_beside.submit(number, work, number)
    work_beside.finish()
    assert kept == list(range(20))


def test_the_caller_does_not_wait_for_the_work(kept):
    go_on = threading.Event()
    beside = Background(kept.append)
    beside.submit("a", go_on.wait, 20)
    assert kept == []  # submit came back, though the work has not
    go_on.set()
    beside.finish()
    assert kept == [True]


@pytest.mark.parametrize("images, size", [(background.QUEUE, 0), (1, background.QUEUE_BYTES)])
def test_no_more_than_the_limits_is_waiting(kept, images, size):
    go_on = threading.Event()
    beside = Background(kept.append)
    for image in range(images):
        beside.submit(image, go_on.wait, 20, size=size)
    one_more = threading.Thread(
        target=beside.submit, args=("more", lambda: None), kwargs={"size": 1}
    )
    one_more.start()
    one_more.join(0.2)
    assert one_more.is_alive()
    go_on.set()
    one_more.join(20)
    assert not one_more.is_alive()
    assert kept[0] is True
    beside.finish()


def test_an_image_larger_than_the_limit_is_evaluated_alone(kept):
    beside = Background(kept.append)
    beside.submit("huge", lambda: "done", size=2 * background.QUEUE_BYTES)
    beside.submit("huge", lambda: "done", size=2 * background.QUEUE_BYTES)
    beside.finish()
    assert kept == ["done"] * 2


def fail():
    raise ValueError("no such pixel")


@pytest.mark.parametrize("then", ["submit", "finish"])
def test_an_error_surfaces_with_the_image_and_drops_the_rest(kept, then):
    beside = Background(kept.append, threads=1)
    beside.submit("first", lambda: 1)
    beside.submit("bad one", fail)
    with pytest.raises(ValueError, match="no such pixel") as raised:
        if then == "finish":
            beside.finish()
        for _ in range(2 * background.QUEUE):  # at the latest when the queue is full
            beside.submit("next", lambda: 2)
    assert raised.value.__notes__ == ["This was raised in the evaluation of image bad one."]
    assert kept == [1]
    beside.finish()
    assert kept == [1]


def test_after_dropping_it_starts_anew(kept):
    beside = Background(kept.append)
    beside.submit("old", lambda: "old")
    beside.drop()
    beside.submit("new", lambda: "new")
    beside.finish()
    assert kept == ["new"]


@pytest.mark.parametrize("kind", CASES)
def test_results_are_those_of_one_image_after_the_other(kind, tmp_path, monkeypatch):
    def at_once(self, image, work, *arguments, size=0):
        self._keep(work(*arguments))

    overlapped = score(kind, tmp_path, processes=1)
    monkeypatch.setattr(Background, "submit", at_once)
    assert repr(score(kind, tmp_path, processes=1)) == repr(overlapped)


def broken(kind, output):
    """A prediction that cannot be evaluated: one pixel row too few."""
    if "panoptic_seg" in output:
        pixels, segments = output["panoptic_seg"]
        return {"panoptic_seg": (pixels[:-1], segments)}
    if kind in ("sem_seg", "cityscapes_sem_seg"):
        return {"sem_seg": output["sem_seg"][:, :-1]}
    instances = output["instances"]
    instances.remove("pred_boxes")
    masks = instances.pred_masks[:, :-1]
    instances.remove("pred_masks")
    instances.pred_masks = masks
    return {"instances": instances}


@pytest.mark.parametrize(
    "kind", ["sem_seg", "panoptic", "cityscapes_sem_seg", "cityscapes_instance"]
)
def test_an_evaluators_error_names_the_image(kind, tmp_path):
    make_set, make_evaluator = CASES[kind]
    name = f"{kind}_{tmp_path.name}"
    pairs = make_set(tmp_path, name)
    evaluator = make_evaluator(name, str(tmp_path / "out"))
    evaluator.reset()
    record, output = pairs[0]
    with pytest.raises(ValueError, match=r"[Pp]rediction") as raised:
        evaluator.process([record], [broken(kind, output)])
        evaluator.evaluate()
    (note,) = raised.value.__notes__
    assert str(record["image_id"]) in note

    # The evaluator can be used again.
    evaluator.reset()
    for record, output in make_set(tmp_path, name):
        evaluator.process([record], [output])
    assert evaluator.evaluate()
