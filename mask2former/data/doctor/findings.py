"""What a check found: how bad, how often, where, and what to do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """ERROR: training or evaluation would fail or be wrong; WARNING: results suffer; INFO."""

    INFO = 0
    WARNING = 1
    ERROR = 2


@dataclass
class Finding:
    """One kind of problem.

    Attributes:
        code: short name, stable for scripts, e.g. "missing-image".
        severity: see `Severity`.
        message: what it is.
        remedy: what to do about it.
        count: how many cases.
        examples: the first few cases.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "severity": self.severity.name}


class Findings:
    """A collection of findings, the worst first."""

    EXAMPLES = 5

    def __init__(self) -> None:
        self._by_code: dict[str, Finding] = {}

    def add(
        self,
        code: str,
        severity: Severity,
        message: str,
        remedy: str,
        example: str | None = None,
        count: int = 1,
    ) -> None:
        """Counts a case; message and remedy are those of the first case of a code."""
        finding = self._by_code.setdefault(code, Finding(code, severity, message, remedy))
        finding.count += count
        if example is not None and len(finding.examples) < self.EXAMPLES:
            finding.examples.append(example)

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._by_code.values(), key=lambda f: (-f.severity, -f.count, f.code)))

    def __len__(self) -> int:
        return len(self._by_code)

    def __contains__(self, code: str) -> bool:
        return code in self._by_code

    def __getitem__(self, code: str) -> Finding:
        return self._by_code[code]

    @property
    def worst(self) -> Severity | None:
        """The highest severity; None without findings."""
        return max((f.severity for f in self._by_code.values()), default=None)
