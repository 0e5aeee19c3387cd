"""The labels that a task declares, with their attributes."""

from .reading import parse


def read_labels(path: str) -> list[str]:
    """Names of the labels that ``meta`` declares (task, job or project), in order.

    Returns:
        an empty list where the file declares none.

    Raises:
        CvatError: the file is no CVAT XML.
        FileNotFoundError: there is no such file.
    """
    return list(read_label_attributes(path))


def read_label_attributes(path: str) -> dict[str, list[str]]:
    """Label -> names of its attributes; parts of skeletons are left out.

    Raises:
        CvatError: the file is no CVAT XML.
        FileNotFoundError: there is no such file.
    """
    labels: dict[str, list[str]] = {}
    for event, element in parse(path, ("start", "end"), ("label", "image")):
        if element.tag == "image":
            break
        if event == "end" and element.getparent().tag == "labels" and element.findtext("name"):
            names = [a.findtext("name") or "" for a in element.iterfind("attributes/attribute")]
            if not element.findtext("parent"):
                labels[element.findtext("name")] = names
    return labels
