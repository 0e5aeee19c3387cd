"""Event storage and its writers: console line, JSON lines, TensorBoard."""

import json
import logging
import logging.handlers

import pytest
import torch

import detectron2
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)

d2lite_only = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="detectron2 differs in spaces, files"
)


def test_storage_is_available_inside_its_block_only():
    assert not has_event_storage()
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage(3) as outer:
        assert get_event_storage() is outer and outer.iter == 3
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert not has_event_storage()


def test_scalars_have_histories_and_latest_values():
    with EventStorage() as storage:
        for value in (1.0, 2.0, 6.0):
            storage.put_scalars(loss=torch.tensor(value), accuracy=value)
            storage.step()
        storage.put_scalar("lr", 0.5, smoothing_hint=False, cur_iter=7)
    assert storage.history("loss").median(3) == 2.0
    assert storage.latest()["loss"] == (6.0, 2)
    assert storage.latest()["lr"] == (0.5, 7)
    assert storage.latest_with_smoothing_hint(3)["loss"] == (2.0, 2)
    assert storage.latest_with_smoothing_hint(3)["lr"] == (0.5, 7)
    assert list(storage.histories()) == ["loss", "accuracy", "lr"]


def test_unknown_history_is_a_key_error():
    with pytest.raises(KeyError):
        EventStorage().history("none")


def test_smoothing_hint_must_not_change():
    storage = EventStorage()
    storage.put_scalar("x", 1.0, smoothing_hint=True)
    with pytest.raises(AssertionError):
        storage.put_scalar("x", 1.0, smoothing_hint=False)


def test_name_scope_prefixes_scalars():
    storage = EventStorage()
    with storage.name_scope("val"):
        storage.put_scalar("loss", 1.0)
    storage.put_scalar("loss", 2.0)
    assert set(storage.latest()) == {"val/loss", "loss"}


def test_windows_are_counted_in_iterations():
    storage = EventStorage()
    for iteration in range(0, 50, 10):
        storage.iter = iteration
        storage.put_scalar("rare", iteration)
    # only the values of iterations 30 and 40 lie within the last 20
    assert storage.latest_with_smoothing_hint(20)["rare"][0] == 35


@pytest.fixture
def console_line():
    """Runs a printer and returns its lines."""
    handler = logging.handlers.BufferingHandler(100)
    logger = logging.getLogger("detectron2.utils.events")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def run(storage: EventStorage, **kwargs) -> list[str]:
        with storage:
            CommonMetricPrinter(**kwargs).write()
        return [record.getMessage() for record in handler.buffer]

    yield run
    logger.removeHandler(handler)
    logger.setLevel(level)


def training_storage() -> EventStorage:
    storage = EventStorage()
    for iteration in range(3):
        storage.iter = iteration
        storage.put_scalars(total_loss=1.23456 + iteration, data_time=0.25, time=0.5)
        storage.put_scalar("loss_ce", 0.0001)
        storage.put_scalar("lr", 0.00012345678, smoothing_hint=False)
    return storage


@d2lite_only
@pytest.mark.skipif(torch.cuda.is_available(), reason="the line ends with memory on a GPU")
def test_console_line(console_line):
    (line,) = console_line(training_storage(), max_iter=100)
    assert line == (
        " eta: 0:00:48  iter: 2  total_loss: 2.235  loss_ce: 0.0001  time: 0.5000  "
        "last_time: 0.5000  data_time: 0.2500  last_data_time: 0.2500   lr: 0.00012346"
    )


def test_console_line_without_timings_shows_what_is_there(console_line):
    storage = EventStorage()
    storage.put_scalar("loss", 1.0)
    (line,) = console_line(storage)
    assert line.startswith(" iter: 0  loss: 1")
    assert "time" not in line and "lr: N/A" in line


def test_no_line_after_the_last_iteration(console_line):
    storage = training_storage()
    storage.iter = 3
    assert console_line(storage, max_iter=3) == []


def test_json_lines_hold_what_is_new(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path), window_size=2)
        storage.put_scalar("loss", 1.0)
        storage.put_scalar("AP", 50.0, smoothing_hint=False)
        writer.write()
        storage.iter = 1
        storage.put_scalar("loss", 2.0)
        writer.write()
        writer.write()
        writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"AP": 50.0, "iteration": 0, "loss": 1.0}, {"iteration": 1, "loss": 1.5}]


def test_json_lines_are_appended(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n')
    with EventStorage(5) as storage:
        writer = JSONWriter(str(path))
        storage.put_scalar("loss", 1.0)
        writer.write()
        writer.close()
    assert len(path.read_text().splitlines()) == 2


def test_tensorboard_gets_scalars_images_and_histograms(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with EventStorage() as storage:
        writer = TensorboardXWriter(str(tmp_path))
        storage.put_scalar("loss", 2.0)
        storage.put_image("picture", torch.zeros(3, 4, 4, dtype=torch.uint8))
        storage.put_histogram("weights", torch.arange(10.0))
        writer.write()
        writer.write()  # nothing new, and the image is not written twice
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.value for e in events.Scalars("loss")] == [2.0]
    assert len(events.Images("picture")) == 1
    assert len(events.Histograms("weights")) == 1


@d2lite_only
def test_tensorboard_writer_creates_nothing_before_its_first_write(tmp_path):
    TensorboardXWriter(str(tmp_path / "logs")).close()
    assert not (tmp_path / "logs").exists()
