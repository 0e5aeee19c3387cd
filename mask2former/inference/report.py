"""A training run as things people look at: a metrics table, curves, and a contact sheet.

Everything is read from files that a run leaves behind (``metrics.json``, the weights), so a report
can be made again at any time.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata
from detectron2.data.detection_utils import read_image
from detectron2.utils.visualizer import Visualizer
from mask2former.data.drawable import for_drawing

from .drawing import draw_predictions
from .predictor import Predictor

matplotlib.use("Agg")  # files only; no window is ever needed

# The metrics people quote, in the order they quote them: (key in metrics.json, heading).
HEADLINE_METRICS = (
    ("panoptic_seg/PQ", "PQ"),
    ("panoptic_seg/PQ_th", "PQ_th"),
    ("panoptic_seg/PQ_st", "PQ_st"),
    ("panoptic_seg/SQ", "SQ"),
    ("panoptic_seg/RQ", "RQ"),
    ("segm/AP", "AP"),
    ("segm/AP50", "AP50"),
    ("sem_seg/mIoU", "mIoU"),
)


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a ``metrics.json``, oldest first; a line cut off by a kill is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return sorted(rows, key=lambda row: row.get("iteration", 0))


def final_metrics(rows: Sequence[dict]) -> dict[str, float]:
    """Headline metrics of the last evaluation, heading -> value; absent tasks are left out."""
    found = {}
    for key, heading in HEADLINE_METRICS:
        values = [row[key] for row in rows if key in row]
        if values:
            found[heading] = values[-1]
    return found


def metrics_table(metrics: dict[str, float], facts: dict[str, str]) -> str:
    """A Markdown table of metrics, followed by one line per fact of the run."""
    lines = [
        "| " + " | ".join(metrics) + " |",
        "|" + " ---: |" * len(metrics),
        "| " + " | ".join(f"{value:.1f}" for value in metrics.values()) + " |",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join(lines) + "\n"


def draw_curves(rows: Sequence[dict], path: str | Path) -> None:
    """Draws losses (left, log scale) and evaluation metrics (right) over iterations as a PNG."""
    figure = Figure(figsize=(12, 4.5), dpi=110, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for key, label in (
        ("total_loss", "total"),
        ("loss_ce", "class (last layer)"),
        ("loss_mask", "mask (last layer)"),
        ("loss_dice", "dice (last layer)"),
    ):
        points = [(row["iteration"], row[key]) for row in rows if key in row]
        if points:
            losses.plot(*zip(*points), label=label, linewidth=1.5)
    losses.set(xlabel="iteration", ylabel="loss", yscale="log", title="Training losses")
    for key, label in HEADLINE_METRICS:
        if label not in ("PQ", "AP", "mIoU"):
            continue
        points = [(row["iteration"], row[key]) for row in rows if key in row]
        if points:
            scores.plot(*zip(*points), marker="o", markersize=4, label=label, linewidth=1.5)
    scores.set(xlabel="iteration", ylabel="%", ylim=(0, 100), title="Validation metrics")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(path)


def contact_sheet(
    cfg: CfgNode,
    path: str | Path,
    *,
    count: int = 12,
    columns: int = 2,
    height: int = 220,
) -> None:
    """Writes a picture of validation images: input, ground truth and prediction side by side.

    Args:
        cfg: the config of a trained panoptic model; images are spread over ``DATASETS.TEST[0]``.
        path: of the picture.
        count: number of images.
        columns: images per row of the sheet (each is three panels wide).
        height: of a panel, in pixels.
    """
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    picked = [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]
    predictor = Predictor(cfg)
    cells = []
    for record in picked:
        image = read_image(record["file_name"], format="BGR")
        scale = height / image.shape[0]
        prediction = draw_predictions(image, predictor(image), predictor.metadata, scale=scale)
        truth = draw_ground_truth(image, record, predictor.metadata, scale=scale)
        panels = (image[:, :, ::-1], truth, prediction.get_image())
        cells.append(_side_by_side([_resize_to(panel, height) for panel in panels]))
    _write_sheet(cells, columns, Path(path))


def draw_ground_truth(
    image: np.ndarray, record: dict, metadata: Metadata, scale: float = 1.0
) -> np.ndarray:
    """The panoptic ground truth of a dataset record over its BGR image; uint8 RGB, times scale."""
    rgb = read_image(record["pan_seg_file_name"], format="RGB").astype(np.int32)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 256 * 256 * rgb[..., 2]  # COCO panoptic encoding
    segments = [segment for segment in record["segments_info"] if not segment.get("iscrowd")]
    drawn = np.isin(ids, [segment["id"] for segment in segments])
    visualizer = Visualizer(image[:, :, ::-1], for_drawing(metadata), scale=scale)
    return visualizer.draw_panoptic_seg(torch.from_numpy(ids * drawn), segments).get_image()


def _resize_to(image: np.ndarray, height: int) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)


def _side_by_side(panels: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    white = np.full((panels[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, white)]
    return np.concatenate(parts[:-1], axis=1)


def _write_sheet(cells: Sequence[np.ndarray], columns: int, path: Path, gap: int = 16) -> None:
    """Pastes cells into a white grid with a heading per column of panels; writes RGB as a file."""
    cell_width = max(cell.shape[1] for cell in cells)
    cell_height = cells[0].shape[0]
    rows = -(-len(cells) // columns)
    heading = 28
    sheet = np.full(
        (heading + rows * (cell_height + gap), columns * (cell_width + gap) + gap, 3), 255, np.uint8
    )
    for index, cell in enumerate(cells):
        top = heading + (index // columns) * (cell_height + gap)
        left = gap + (index % columns) * (cell_width + gap)
        sheet[top : top + cell_height, left : left + cell.shape[1]] = cell
    for column in range(columns):
        text = "input  /  ground truth  /  prediction"
        place = (gap + column * (cell_width + gap), heading - 9)
        cv2.putText(
            sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA
        )
    if not cv2.imwrite(str(path), sheet[:, :, ::-1]):
        raise OSError(f"{path}: cannot be written")
