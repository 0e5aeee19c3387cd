"""A survey as text."""

from .survey import Survey

_BAR = 30


def survey_lines(found: Survey, limit: int = 10) -> list[str]:
    """Counts, problems and the class histogram.

    Args:
        found: of `survey`.
        limit: as many missing files, problems and images without annotations are listed.
    """
    lines = ["", f"{found.records} records, {found.examined} of them decoded"]
    if not found.examined and not found.missing and found.records:
        lines.append("the records name categories, not images (crop sampling)")
    lines += _listed("MISSING", "files that records name", found.missing, limit)
    lines += _listed("PROBLEM", "problems", found.problems, limit)
    lines += _listed("note", "images without annotations", found.empty, limit)
    if found.objects or found.pixels:
        lines += ["", *_histogram(found)]
    if found.sound:
        lines += ["", "nothing missing, nothing broken"]
    return lines


def _listed(word: str, what: str, entries: list[str], limit: int) -> list[str]:
    if not entries:
        return []
    head = [f"{word}  {len(entries)} {what}" + (":" if limit else "")]
    more = [f"  ... and {len(entries) - limit} more (--limit)"] if len(entries) > limit else []
    return head + [f"  {e}" for e in entries[:limit]] + more


def _histogram(found: Survey) -> list[str]:
    """Classes by objects where there are objects, else by pixels; the longest bar is the most."""
    counts = found.objects or found.pixels
    unit = "objects" if found.objects else "pixels"
    most, total = max(counts.values()), sum(counts.values())
    width = min(30, max(len(n.strip()) for n in counts))
    lines = [f"{'class':{width}}  {'images':>7}  {unit:>11}  {'share':>6}"]
    for name, count in counts.most_common():
        bar = "#" * max(1, round(_BAR * count / most))
        label = name.strip()[:width]
        share = f"{count / total:6.1%}"
        lines.append(f"{label:{width}}  {found.images[name]:7}  {count:11}  {share}  {bar}")
    absent = [n.strip() for n in found.names if n not in counts]
    if absent:
        shown = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if absent[8:] else "")
        lines.append(f"{len(absent)} classes do not occur: {shown}")
    return lines
