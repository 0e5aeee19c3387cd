"""A Mask2Former model as a CVAT auto-annotation function.

With the package cvat-cli installed (``pip install cvat-cli``)::

    cvat-cli --server-host https://app.cvat.ai --auth USER task auto-annotate TASK_ID \\
        --function-file predict/cvat_function.py \\
        -p config_file=str:CONFIG.yaml -p weights=str:model_final.pth \\
        --allow-unmatched-labels

The labels of the task are matched to the model's classes by name. ``--conf-threshold`` and
``--conv-mask-to-poly`` of cvat-cli are honoured. For work on files instead of a server, see
run_annotation_pipeline.py.
"""

import logging
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

try:
    import cvat_sdk.auto_annotation as cvataa
    import cvat_sdk.models as models
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "predict/cvat_function.py needs the package cvat-sdk: pip install cvat-sdk", name=error.name
    ) from error

import mask2former  # noqa: F401 - registers models and data sets
from mask2former.data.cvat import CvatMask
from mask2former.data.dataset_mappers.reading import is_deep
from mask2former.engine.setup import load_config
from mask2former.inference import Predictor
from mask2former.inference.annotation import MergeOptions, ProposalOptions, proposals_of
from mask2former.inference.annotation.polygons import mask_to_polygons
from mask2former.inference.annotation.proposals import TASKS, class_names

logger = logging.getLogger(__name__)


class Mask2FormerFunction:
    """What cvat-sdk calls: `spec` says the labels, `detect` finds objects in an image.

    Args:
        config_file: YAML config of the model.
        weights: MODEL.WEIGHTS; empty: those of the config.
        task: "auto", "instance", "panoptic" or "semantic".
        threshold: least score of an instance where cvat-cli gives none.
        simplify: error of simplified polygons in pixels.
        opts: further ``KEY VALUE`` pairs for the config, separated by blanks.

    Numbers may be texts (``-p threshold=str:0.3``).

    Raises:
        ValueError, OSError, ConfigError: an argument cannot be used; names it.
    """

    def __init__(
        self,
        config_file: str,
        weights: str = "",
        task: str = "auto",
        threshold: float = 0.5,
        simplify: float = 1.0,
        opts: str = "",
    ) -> None:
        self._task, self._threshold = task, _number("threshold", threshold, 0.0, 1.0)
        self._simplify = _number("simplify", simplify, 0.0, math.inf)
        overrides = shlex.split(opts) + (["MODEL.WEIGHTS", weights] if weights else [])
        cfg = load_config(config_file, overrides, need_data=False)
        test = cfg.MODEL.MASK_FORMER.TEST
        given = [t for t in TASKS if test[f"{t.upper()}_ON"]]
        if task != "auto" and task not in given:
            raise ValueError(f"-p task: {task!r}; this config has auto, {', '.join(given)}")
        self._predictor = Predictor(cfg)
        self._predictor.require_trained()
        shown = next(iter(given), "semantic") if task == "auto" else task
        names = class_names(self._predictor.metadata, shown)
        self._ids = {name: i for i, name in enumerate(names)}
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, i) for name, i in self._ids.items()]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """Masks, or polygons where the context asks for them, best first."""
        threshold = self._threshold if context.conf_threshold is None else context.conf_threshold
        if is_deep(image.mode):
            logger.warning(
                "%s has more than 8 bits a pixel (%s): everything above 255 is cut off to white",
                context.frame_name, image.mode,
            )  # fmt: skip
        # CVAT shows images turned as their EXIF says, and so are its coordinates.
        rgb = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
        output = self._predictor(np.ascontiguousarray(rgb[:, :, ::-1]))
        options = ProposalOptions(task=self._task, threshold=threshold)
        found, _ = proposals_of(output, self._predictor.metadata, options)
        height, width = rgb.shape[:2]
        shapes = []
        for proposal in found:
            if proposal.label not in self._ids:
                continue
            label = self._ids[proposal.label]
            if context.conv_mask_to_poly:
                polygons = mask_to_polygons(
                    proposal.pixels(height, width), self._simplify, MergeOptions.least_part
                )
                shapes += [cvataa.polygon(label, p.ravel().tolist()) for p in polygons]
            else:
                shapes.append(cvataa.mask(label, _points(proposal.mask)))
        return shapes


def _number(name: str, value: float | str, least: float, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"-p {name}: {value!r} is no number from {least:g} to {most:g}")
    return number


def _points(mask: CvatMask) -> list[float]:
    return [float(value) for value in mask.points]


# cvat-cli looks for this name.
create = Mask2FormerFunction
