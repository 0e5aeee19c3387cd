"""A new "CVAT for images 1.1" document, for images that no task has exported yet."""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr


def new_document(images: Sequence[tuple[str, int, int]], labels: Sequence[str]) -> bytes:
    """An annotation file with labels and images, and no shape yet.

    Args:
        images: name, width and height in pixels; the names are those the task will have.
        labels: names of the task's labels.

    Returns:
        UTF-8 XML, indented as CVAT writes it; shapes are added with
        `mask2former.data.cvat.document.edit_image` or
        `mask2former.inference.annotation.merge_image`.
    """
    declared = "\n".join(
        f"        <label>\n          <name>{escape(name)}</name>\n"
        "          <attributes>\n          </attributes>\n        </label>"
        for name in labels
    )
    elements = "\n".join(
        f'  <image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">\n'
        "  </image>"
        for number, (name, width, height) in enumerate(images)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta>\n    <task>\n      <size>{len(images)}</size>\n      <labels>\n{declared}\n"
        f"      </labels>\n    </task>\n  </meta>\n{elements}\n</annotations>\n"
    ).encode()
