"""Semantic segmentation from mask classification (MaskFormer, section 3.4)."""

import torch
from torch import Tensor

from detectron2.modeling.postprocessing import sem_seg_postprocess
from mask2former.ops import mask_strips

from .best_class import BestClass
from .label_scores import LabelScores
from .resize import Size, resize_axis, resize_columns


class SemanticTask:
    """Per pixel and class, the sum over queries of class probability x mask probability.

    Args:
        class_probs: [Q, K], without "no object".
        size: (height, width) of the masks that are shown.
        output: (height, width) of the result.
    """

    queries = None  # all of them

    def __init__(self, class_probs: Tensor, size: Size, output: Size) -> None:
        self.size, self.output = size, output
        self.by_class = class_probs.T.contiguous()  # [K, Q]
        self.scores = class_probs.new_empty(len(self.by_class), *size)  # [K, H, W]

    def add(self, rows: slice, probs: Tensor, index: Tensor) -> None:
        """Takes some rows of all mask probabilities, [Q, rows, W]; ``index`` is all of them."""
        width = probs.shape[2]
        here = self.scores.flatten(1)[:, rows.start * width : rows.stop * width]
        torch.mm(self.by_class, probs.flatten(1), out=here)  # [K, rows * W]

    def finish(self) -> Tensor:
        """float [K, H, W]."""
        if self.output == self.size:
            return self.scores
        return sem_seg_postprocess(self.scores, self.size, *self.output)


class SemanticLabelTask:
    """The best class of each pixel; the scores exist for a strip of rows only.

    Args:
        class_probs: [Q, K], without "no object".
        size: (height, width) of the masks that are shown.
        output: (height, width) of the result; scores are resized to it before they are compared.
    """

    queries = None  # all of them

    def __init__(self, class_probs: Tensor, size: Size, output: Size) -> None:
        self.by_class = class_probs.T.contiguous()  # [K, Q]
        self.labels = torch.empty(output, dtype=torch.int16, device=class_probs.device)
        self.classes = BestClass(self.by_class)
        self.axes = None
        if size != output:
            like = class_probs.dtype, class_probs.device
            self.axes = [resize_axis(s, s, s, o, *like) for s, o in zip(size, output)]
            vertical = self.axes[0]
            # Rows that each row of the result needs.
            self.first, self.last = vertical.first, vertical.last
            self.compiled = mask_strips.applies(class_probs) and all(
                axis.row_taps.count <= mask_strips.MOST_TAPS for axis in self.axes
            )
            if self.compiled:
                self.first = vertical.row_taps.first.tolist()
                self.last = [first + vertical.row_taps.count for first in self.first]
            self.done = 0  # rows of the result
            self.start = 0  # row that `band` begins with
            self.band = self.by_class.new_empty(len(self.by_class), 0, size[1])

    def add(self, rows: slice, probs: Tensor, index: Tensor) -> None:
        """Takes some rows of all mask probabilities, [Q, rows, W], from top to bottom."""
        if self.axes is None:
            best = self.classes(probs.flatten(1))
            self.labels[rows] = best.view(probs.shape[1:]).to(self.labels.dtype)
            return
        scores = (self.by_class @ probs.flatten(1)).unflatten(1, probs.shape[1:])  # [K, rows, W]
        # Rows of the result that need nothing below this strip; the rest waits for the next one.
        self.band = torch.cat([self.band, scores], 1)
        ready = self.done
        while ready < len(self.labels) and self.last[ready] <= rows.stop:
            ready += 1
        if ready == self.done:
            return
        self.labels[self.done : ready] = self._resized_labels(slice(self.done, ready))
        keep = self.first[ready] if ready < len(self.labels) else rows.stop
        self.band = self.band[:, keep - self.start :]
        self.done, self.start = ready, keep

    def _resized_labels(self, rows: slice) -> Tensor:
        """Some rows of the result."""
        vertical, horizontal = self.axes
        if self.compiled:
            taps = vertical.row_taps.from_row(self.start), horizontal.column_taps
            width = self.labels.shape[1]
            return mask_strips.argmax(mask_strips.resize(self.band, *taps, rows, width, False))
        weights = vertical.weights[rows, self.start : self.start + self.band.shape[1]]
        resized = resize_columns(weights @ self.band, horizontal)  # [K, rows, W']
        return resized.max(0).indices.to(self.labels.dtype)

    def finish(self) -> LabelScores:
        """What has an ``argmax(dim=0)``."""
        return LabelScores(self.labels, len(self.by_class))
