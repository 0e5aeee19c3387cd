"""Model-assisted labelling: predictions become shapes of a CVAT annotation file.

`pipeline` runs it; `proposals` turns model outputs into labelled masks, `polygons` masks into
outlines, `merging` decides what becomes of shapes that are already there, `store` keeps what is
finished, and `review` says what people should look at first.
"""

from .merging import EXISTING_POLICIES, MergeOptions, merge_image
from .pipeline import AnnotationPipeline, PipelineOptions
from .proposals import Proposal, ProposalOptions, proposals_of

__all__ = [
    "EXISTING_POLICIES",
    "AnnotationPipeline",
    "MergeOptions",
    "PipelineOptions",
    "Proposal",
    "ProposalOptions",
    "merge_image",
    "proposals_of",
]
