"""A table of parameter names in two layouts, read in either direction.

One rule renames a family of parameters. In its patterns ``{i}`` and ``{j}`` stand for an index,
``{p}`` for ``weight`` or ``bias`` and ``{rest}`` for anything::

    Rule("backbone.norm{i}.{p}", "backbone.hidden_states_norms.stage{i}.{p}")

Several patterns on their side are parameters that ours holds in one, stacked along the first axis
(queries, keys and values of an attention).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

_GROUPS = {"i": r"\d+", "j": r"\d+", "p": "weight|bias", "rest": ".+"}
Change = Callable[[Tensor], Tensor]


def unchanged(value: Tensor) -> Tensor:
    """The default of a rule: only the name differs."""
    return value


@dataclass(frozen=True)
class Rule:
    """One family of parameters.

    Attributes:
        ours: pattern of the name in this project.
        theirs: pattern, or several, of the name there.
        to_ours: from their tensor (stacked, if several) to ours, where values differ too.
        to_theirs: the inverse of ``to_ours``.
        offset: what to add to ``{i}`` on their side.
    """

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Change = unchanged
    to_theirs: Change = unchanged
    offset: int = 0

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """``theirs`` as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    @cached_property
    def ours_regex(self) -> re.Pattern:
        """Matches our name."""
        return _regex(self.ours)

    @cached_property
    def theirs_regex(self) -> re.Pattern:
        """Matches the first of their names."""
        return _regex(self.parts[0])

    def our_name(self, groups: Mapping[str, str]) -> str:
        """Our name for what their pattern captured."""
        return self.ours.format(**_shift(groups, -self.offset))

    def their_names(self, groups: Mapping[str, str]) -> list[str]:
        """Their names for what our pattern captured."""
        return [part.format(**_shift(groups, self.offset)) for part in self.parts]


@dataclass
class Renamed:
    """The outcome of a conversion.

    Attributes:
        weights: the converted tensors by name.
        sources: for each of them the name, or names, it was made of.
        left_over: names that no rule knows.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)


class KeyMap:
    """Rules in order; the first that matches a name decides.

    Args:
        rules: the table.
        ignored: regular expressions of names, on either side, that carry nothing (indices).
    """

    def __init__(self, rules: Iterable[Rule], ignored: Iterable[str] = ()) -> None:
        self.rules = tuple(rules)
        self._ignored = [re.compile(pattern) for pattern in ignored]

    def to_ours(self, theirs: Mapping[str, Tensor]) -> Renamed:
        """Renames their weights; parts of one of ours are stacked."""
        result = Renamed()
        used = set()
        for name in theirs:
            found = _first_match(name, ((rule, rule.theirs_regex) for rule in self.rules))
            if found is None:
                continue
            rule, groups = found
            parts = [part.format(**groups) for part in rule.parts]
            if any(part not in theirs for part in parts):
                continue
            ours = rule.our_name(groups)
            values = [theirs[part] for part in parts]
            value = values[0] if len(values) == 1 else torch.cat(values)
            result.weights[ours] = rule.to_ours(value)
            result.sources[ours] = tuple(parts)
            used.update(parts)
        result.left_over = [n for n in theirs if n not in used and not self.ignores(n)]
        return result

    def to_theirs(self, ours: Mapping[str, Tensor]) -> Renamed:
        """Renames our weights; where theirs are several, ours is cut in equal parts."""
        result = Renamed()
        for name, value in ours.items():
            found = _first_match(name, ((rule, rule.ours_regex) for rule in self.rules))
            if found is None:
                result.left_over += [] if self.ignores(name) else [name]
                continue
            rule, groups = found
            names = rule.their_names(groups)
            value = rule.to_theirs(value)
            pieces = [value]
            if len(names) > 1:
                pieces = [piece.clone() for piece in value.chunk(len(names))]
            result.weights.update(zip(names, pieces))
            result.sources.update(dict.fromkeys(names, (name,)))
        return result

    def ignores(self, name: str) -> bool:
        """Whether ``name`` is left out without a word."""
        return any(pattern.search(name) for pattern in self._ignored)


def _regex(pattern: str) -> re.Pattern:
    pieces = re.split(r"\{(\w+)\}", pattern)
    regex, seen = "", set()
    for k, piece in enumerate(pieces):
        if k % 2 == 0:
            regex += re.escape(piece)
        elif piece in seen:
            regex += f"(?P={piece})"
        else:
            regex += f"(?P<{piece}>{_GROUPS[piece]})"
            seen.add(piece)
    return re.compile(regex + r"\Z")


def _first_match(
    name: str, candidates: Iterable[tuple[Rule, re.Pattern]]
) -> tuple[Rule, dict[str, str]] | None:
    for rule, regex in candidates:
        match = regex.match(name)
        if match:
            return rule, match.groupdict()
    return None


def _shift(groups: Mapping[str, str], offset: int) -> dict[str, str]:
    return {k: str(int(v) + offset) if k == "i" and offset else v for k, v in groups.items()}
