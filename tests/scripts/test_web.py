"""demo/web.py: its command line, its functions through gradio's own client, and in a browser."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from mask2former.data.cvat import iterate_images, read_labels
from mask2former.inference.annotation import ProposalOptions, proposals_of

REPO = Path(__file__).parents[2]
TASKS = {"panoptic": "PANOPTIC", "instance": "INSTANCE", "semantic": "SEMANTIC"}


def web_module():
    sys.path.insert(0, str(REPO / "demo"))  # as a script finds its neighbours
    try:
        spec = importlib.util.spec_from_file_location("web", REPO / "demo/web.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(REPO / "demo"))


@pytest.fixture(scope="module")
def page(project):
    """Address of the page with a tiny random model."""
    web = web_module()
    args = web.get_parser().parse_args(
        ["--config-file", project.config, "--examples", str(project.images), "--threshold", "0.05"]
        + ["--opts", "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", project.weights]
    )
    app = web.build(args)
    from mask2former.inference.web.app import LAUNCH

    port = web.free_port("127.0.0.1", 0)
    _, address, _ = app.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **LAUNCH
    )
    yield address
    app.close()


@pytest.fixture(scope="module")
def segment(page):
    """``segment(file, task, threshold, opacity)`` -> overlay, legend, table, PNG, JSON, XML."""
    from gradio_client import Client, handle_file

    client = Client(page, verbose=False)

    def call(file, task="panoptic", threshold=0.05, opacity=0.5):
        given = handle_file(str(file)) if file else None
        return client.predict(given, task, threshold, opacity, api_name="/segment")

    return call


def path_of(update) -> str:
    """The file behind a download button."""
    value = update["value"] if isinstance(update, dict) else update
    return value["path"] if isinstance(value, dict) else value


@pytest.mark.parametrize("task", list(TASKS))
def test_the_files_agree_with_the_table(segment, project, task):
    image = sorted(project.images.iterdir())[0]
    height, width = cv2.imread(str(image)).shape[:2]
    overlay, legend, table, *files = segment(image, task)
    png, data, xml = map(path_of, files)
    rows = table["data"]
    assert len(rows) >= 1

    found = json.loads(Path(data).read_text())
    assert (found["image"], found["width"], found["height"]) == (image.name, width, height)
    assert [s["label"] for s in found["segments"]] == [row[1] for row in rows]
    assert [str(s["area"]) for s in found["segments"]] == [row[3] for row in rows]
    if task != "instance":  # pixels belong to one segment
        assert sum(s["area"] for s in found["segments"]) <= height * width

    (element,) = iterate_images(xml)
    assert (element.name, element.height, element.width) == (image.name, height, width)
    areas = [int(shape.mask(height, width).sum()) for shape in element.shapes]
    assert areas == [s["area"] for s in found["segments"]]
    assert {s.label for s in element.shapes} <= set(read_labels(xml))

    drawn = np.asarray(Image.open(png))
    assert drawn.shape[0] % height == drawn.shape[1] % width == 0
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(overlay).convert("RGB")))
    assert all(row[1] in legend for row in rows)


def test_a_higher_threshold_leaves_fewer_objects(segment, project):
    image = sorted(project.images.iterdir())[0]
    counts = [len(segment(image, "instance", t)[2]["data"]) for t in (0.02, 0.05, 1.0)]
    assert counts[0] >= counts[1] >= counts[2] == 0
    assert counts[0] > 0
    assert "try a lower threshold" in segment(image, "instance", 1.0)[1]
    assert "no segments" in segment(image, "panoptic", 1.0)[1]


def test_opacity_goes_from_the_image_to_the_colours(segment, project):
    image = sorted(project.images.iterdir())[0]
    plain = cv2.imread(str(image)).astype(int)
    differences = []
    for opacity in (0.0, 0.5, 1.0):
        drawn = cv2.imread(path_of(segment(image, "semantic", 0.5, opacity)[3])).astype(int)
        scale = drawn.shape[0] // plain.shape[0]
        near = cv2.resize(plain.astype(np.uint8), None, fx=scale, fy=scale, interpolation=2)
        differences.append(np.abs(drawn - near).mean())
    assert differences[0] < differences[1] < differences[2]


def test_a_turned_photograph_is_segmented_as_it_is_shown(segment, project, tmp_path):
    source = Image.open(sorted(project.images.iterdir())[0])
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    source.save(tmp_path / "Foto ä 1.jpg", exif=exif)
    data = path_of(segment(tmp_path / "Foto ä 1.jpg")[4])
    found = json.loads(Path(data).read_text())
    assert (found["width"], found["height"]) == source.size[::-1]
    assert found["image"] == "Foto ä 1.jpg"


def test_no_image_is_no_result(segment):
    overlay, legend, table, *_ = segment(None)
    assert (overlay, legend, table["data"]) == (None, "", [])


def test_a_file_that_is_no_image_is_refused(segment, tmp_path):
    from gradio_client.exceptions import AppError

    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(AppError, match=r"broken.png cannot be read as an image"):
        segment(tmp_path / "broken.png")


def test_an_image_is_predicted_once_for_all_tasks_and_instance_thresholds(project):
    from mask2former.engine.setup import load_config
    from mask2former.inference import Predictor
    from mask2former.inference.web import Segmenter

    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", project.weights]
    predictor = Predictor(load_config(project.config, opts))
    calls = []
    predictor.model.register_forward_hook(lambda *_: calls.append(1))
    segmenter = Segmenter(predictor)
    image = sorted(project.images.iterdir())[0]
    for task, threshold in (("panoptic", 0.1), ("instance", 0.1), ("instance", 0.7)):
        segmenter.segment(image, task, threshold)
    assert len(calls) == 1
    segmenter.segment(image, "panoptic", 0.7)  # changes which queries compete for pixels
    assert len(calls) == 2
    with pytest.raises(ValueError, match="no depth output; it has panoptic"):
        segmenter.segment(image, "depth", 0.5)


def test_without_weights_one_line_says_what_makes_them(monkeypatch, tmp_path, capsys):
    web = web_module()
    monkeypatch.setattr(web, "QUICKSTART_WEIGHTS", tmp_path / "model_final.pth")
    assert web.main(["--port", "0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "model_final.pth" in line
    assert "make quickstart" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config-file", "gone.yaml"], "--config-file gone.yaml: no such file"),
        (["--opts", "MODEL.WEIGHTS", "gone.pth"], "MODEL.WEIGHTS gone.pth"),
        (["--opts", "MODEL.WEIGHTS", ""], "no weights"),
        (["--opts", "MODEL.WEIGHT", "w.pth"], "no config key MODEL.WEIGHT;"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says, capsys):
    assert web_module().main(["--port", "0", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("web.py: ")
    assert says in line


def test_a_port_in_use_is_one_line(page, capsys):
    port = re.search(r":(\d+)", page).group(1)
    assert web_module().main(["--port", port]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--port {port}: Address already in use" in line


# --- in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system, or playwright's own."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with driver.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except driver.Error as error:
            reason = str(error).strip().splitlines()[0]
            pytest.skip(f"needs Chromium (apt-get install chromium): {reason}")
        yield chromium
        chromium.close()


@pytest.fixture
def view(browser, page):
    """The page in a fresh window; fails the test when it asks another server for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    window = context.new_page()
    foreign = []
    window.on("request", lambda r: None if r.url.startswith((page, "blob:", "data:"))
              else foreign.append(r.url))  # fmt: skip
    window.goto(page)
    yield window
    context.close()
    assert not foreign


def overlay_address(view) -> str:
    return view.wait_for_selector("#overlay img").get_attribute("src")


def test_people_upload_look_change_the_task_and_download(view, project, tmp_path):
    image = sorted(project.images.iterdir())[1]
    view.set_input_files("#input input[type=file]", str(image))
    first = overlay_address(view)
    legend = view.wait_for_selector("#legend .summary").inner_text()
    assert legend.startswith(image.name)
    assert view.locator("#segments tbody tr").count() >= 1
    size = view.evaluate("() => document.querySelector('#overlay img').naturalWidth")
    assert size >= 600

    view.get_by_label("semantic").check()
    view.wait_for_function(
        "old => document.querySelector('#overlay img')?.getAttribute('src') !== old", arg=first
    )
    view.wait_for_function("() => document.querySelector('#legend').innerText.includes('region')")
    for suffix in ("png", "json", "xml"):
        with view.expect_download() as download:
            view.click(f"#get-{suffix}")
        assert download.value.suggested_filename == f"{image.stem}_semantic.{suffix}"
        download.value.save_as(tmp_path / f"out.{suffix}")
    assert cv2.imread(str(tmp_path / "out.png")).shape[1] == size
    found = json.loads((tmp_path / "out.json").read_text())
    (element,) = iterate_images(str(tmp_path / "out.xml"))
    assert len(element.shapes) == len(found["segments"]) >= 1


def test_an_example_is_one_click_away(view):
    view.click(".gallery-item >> nth=0")
    assert overlay_address(view)


def test_a_broken_upload_says_so_on_the_page(view, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    view.set_input_files("#input input[type=file]", str(tmp_path / "broken.png"))
    message = view.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "broken.png cannot be read as an image" in message


def test_an_image_of_one_row_is_not_enlarged_beyond_memory(segment, tmp_path):
    Image.new("RGB", (3000, 1), (200, 30, 30)).save(tmp_path / "row.png")
    overlay = segment(tmp_path / "row.png", "panoptic")[0]
    assert Image.open(overlay).size == (3000, 1)


def test_a_deep_grey_image_is_named_on_the_page(segment, tmp_path):
    Image.fromarray(np.full((40, 50), 3000, np.uint16)).save(tmp_path / "deep.png")
    _, legend, *_ = segment(tmp_path / "deep.png")
    assert "deep.png has more than 8 bits a pixel" in legend


@pytest.mark.parametrize("fast", [True, False])
def test_the_page_needs_no_scores_at_full_size(project, fast):
    from mask2former.engine.setup import load_config
    from mask2former.inference import Predictor
    from mask2former.inference.web import Segmenter

    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", project.weights, "MODEL.FAST", fast]
    predictor = Predictor(load_config(project.config, opts))
    kinds = []
    predictor.model.register_forward_hook(
        lambda *args: kinds.append(args[-1][0]["instances"].pred_masks.dtype)
    )
    image = sorted(project.images.iterdir())[0]
    found = Segmenter(predictor).segment(image, "instance", 0.05).proposals
    plain = proposals_of(
        predictor(cv2.imread(str(image))),
        predictor.metadata,
        ProposalOptions(task="instance", threshold=0.05),
    )[0]
    assert found == plain
    assert kinds == [torch.bool if fast else torch.float32, torch.float32]
