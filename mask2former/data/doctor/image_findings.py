"""What is wrong or odd with one image of a data set."""

from typing import Any

from mask2former.data.dataset_mappers.reading import is_deep

from .findings import Findings, Severity
from .images import ImageFacts
from .survey_data import SplitSurvey


def add_broken(file_name: str, image: ImageFacts, findings: Findings) -> None:
    """An image that is missing or cannot be decoded."""
    if image.missing:
        findings.add(
            "missing-image",
            Severity.ERROR,
            "annotated images that are not there",
            "copy or link their folder beside the annotation file, or remove them from the "
            "annotations",
            file_name,
        )
    else:
        findings.add(
            "corrupt-image",
            Severity.ERROR,
            "images that cannot be decoded",
            "save them again or remove them (training replaces them and counts)",
            f"{file_name}: {image.problem}",
        )


def check_image(record: dict[str, Any], image: ImageFacts, findings: Findings) -> None:
    """Size against the record's, EXIF rotation, depth and colours of an image that can be read."""
    name = record["file_name"]
    declared = (record.get("width"), record.get("height"))
    if declared[0] and declared != image.shown_size:
        if declared == image.size:
            findings.add(
                "exif-rotation",
                Severity.ERROR,
                "images are shown turned (EXIF), but their annotations are for the stored pixels",
                "save the images without the EXIF orientation, e.g. mogrify -strip",
                name,
            )
        else:
            findings.add(
                "image-size",
                Severity.ERROR,
                "images of another size than the annotations say",
                "annotate the images as they are, or scale the annotations",
                f"{name}: {image.shown_size}, annotated {declared}",
            )
    elif image.turned:
        findings.add(
            "exif-turned",
            Severity.INFO,
            "images are turned by EXIF, and annotated as they are shown",
            "nothing to do here; other tools may not turn them",
            name,
        )
    if is_deep(image.mode):
        findings.add(
            "deep-image",
            Severity.WARNING,
            "grey images of more than 8 bits; values above 255 are cut off to white",
            "convert them to 8 bits with one scaling of your choice, those to predict on too",
            f"{name}: {image.mode}",
        )
    elif image.mode in ("RGBA", "LA", "CMYK", "YCCK", "PA"):
        findings.add(
            "odd-channels",
            Severity.INFO,
            "images with transparency or in print colours are converted to RGB",
            "look at the drawn samples: are the colours right?",
            f"{name}: {image.mode}",
        )
    elif image.mode in ("L", "1"):
        findings.add(
            "grey-image",
            Severity.INFO,
            "grey images are repeated in three channels",
            "nothing to do, unless only some of the images are grey by mistake",
            name,
        )


def check_repeated(
    role: str, file_name: str, image: ImageFacts, split: SplitSurvey, findings: Findings
) -> None:
    """Whether the same picture came before in the split (``split.contents`` remembers them)."""
    first = split.contents.setdefault(image.content, file_name)
    if first != file_name:
        findings.add(
            "repeated-image",
            Severity.WARNING,
            f"the same picture more than once in {role}",
            "remove the copies",
            f"{file_name} = {first}",
        )
