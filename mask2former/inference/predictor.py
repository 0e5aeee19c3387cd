"""Runs a trained model on images held in memory, one or many at a time."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

import detectron2.data.transforms as T
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from mask2former.data.datasets.custom import register_custom_datasets
from mask2former.modeling.fast_inference import prepare_for_inference

from .tiling import tiled


class Predictor:
    """The model of a config with its weights, ready to be called on images.

    Differs from detectron2's ``DefaultPredictor`` in three ways: it takes several images per call,
    it runs on CPU when the config asks for a GPU that is not there, and it has
    :meth:`stream` for long sequences.

    Args:
        cfg: a complete config. ``MODEL.WEIGHTS`` is loaded; ``INPUT.{MIN,MAX}_SIZE_TEST`` and
            ``INPUT.FORMAT`` say how images are prepared.

    Attributes:
        metadata: of ``DATASETS.TEST[0]``, else of ``DATASETS.TRAIN[0]``: names and colours.
        model: the network, in eval mode.
        untrained: names of its parameters that ``MODEL.WEIGHTS`` did not give.
    """

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg.clone()
        if self.cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
            self.cfg.defrost()
            self.cfg.MODEL.DEVICE = "cpu"
        if self.cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is {self.cfg.INPUT.FORMAT!r}; known are RGB and BGR.")
        self.model = build_model(self.cfg).eval()
        checkpointer = _Checkpointer(self.model)
        checkpointer.load(self.cfg.MODEL.WEIGHTS)
        self.untrained = checkpointer.untrained
        self.model = tiled(prepare_for_inference(self.model, self.cfg), self.cfg)
        register_custom_datasets(self.cfg, need_files=False)
        names = self.cfg.DATASETS.TEST or self.cfg.DATASETS.TRAIN
        self.metadata = MetadataCatalog.get(names[0] if names else "__unnamed__")
        self.resize = T.ResizeShortestEdge(
            [self.cfg.INPUT.MIN_SIZE_TEST, self.cfg.INPUT.MIN_SIZE_TEST],
            self.cfg.INPUT.MAX_SIZE_TEST,
        )

    def require_trained(self) -> None:
        """Refuses a model that would predict at random.

        Raises:
            ValueError: parameters are not in the weights file, or have another shape there.
        """
        if self.untrained:
            raise ValueError(
                f"MODEL.WEIGHTS {self.cfg.MODEL.WEIGHTS or '(none)'}: {len(self.untrained)} of the "
                f"model's parameters are not in it or have another shape ({self.untrained[0]}, "
                "...), so that its predictions would be random; give the config that these weights "
                "were trained with, or other weights"
            )

    def prepare(self, image: np.ndarray) -> dict:
        """Turns one image into a model input.

        Args:
            image: uint8 ``[H, W, 3]`` in BGR order, as OpenCV reads it.

        Returns:
            ``{"image": float32 [3, h, w], "height": H, "width": W}``.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an image of shape [H, W, 3], got {image.shape}")
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        transform = self.resize.get_transform(image)
        if 0 in (getattr(transform, "new_h", 1), getattr(transform, "new_w", 1)):
            # So narrow that nothing would be left of it.
            size = max(transform.new_h, 1), max(transform.new_w, 1)
            transform = T.ResizeTransform(height, width, *size)
        image = transform.apply_image(np.ascontiguousarray(image))
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
        return {"image": tensor, "height": height, "width": width}

    @torch.no_grad()
    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> dict | list[dict]:
        """Predicts on one image (returns its dict) or on a sequence (returns a list).

        Args:
            images: uint8 BGR ``[H, W, 3]``, of any sizes.

        Returns:
            Per image the model's outputs at the image's size; see ``MaskFormer.forward``.
        """
        if isinstance(images, np.ndarray):
            return self.model([self.prepare(images)])[0]
        return self.model([self.prepare(image) for image in images]) if len(images) else []

    def stream(self, images: Iterable[np.ndarray], batch_size: int = 1) -> Iterator[dict]:
        """Predicts on images (uint8 BGR ``[H, W, 3]``) as they come, in order.

        Only consecutive images of one size share a batch: no image is padded because of its
        neighbours, so the result does not depend on ``batch_size``.
        """
        batch: list[np.ndarray] = []
        for image in images:
            if batch and (len(batch) == batch_size or image.shape != batch[0].shape):
                yield from self(batch)
                batch = []
            batch.append(image)
        if batch:
            yield from self(batch)


class _Checkpointer(DetectionCheckpointer):
    """Keeps which parameters the weights did not give."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.untrained = [name for name, _ in model.named_parameters()]

    def _log_incompatible_keys(self, incompatible) -> None:
        # Called by load, with missing_keys and incorrect_shapes.
        absent = {*incompatible.missing_keys, *(e[0] for e in incompatible.incorrect_shapes)}
        self.untrained = [name for name in self.untrained if name in absent]
        super()._log_incompatible_keys(incompatible)
