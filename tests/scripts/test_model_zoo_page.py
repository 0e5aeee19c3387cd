"""MODEL_ZOO.md says what docs/model_zoo.json says, and points at what exists."""

import json
import re
import runpy
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DATA = json.loads((REPO / "docs/model_zoo.json").read_text())
PAGE = (REPO / "MODEL_ZOO.md").read_text()
CONFIG = re.compile(r"\[([\w-]+\.yaml)\]\(configs[^)]*\)|`([\w-]+\.yaml)` \(not here yet\)")


def without_config_links(page: str) -> str:
    """A neighbour who adds a config must not break this page: a link or a plain name will do."""
    return CONFIG.sub(lambda match: match[1] or match[2], page)


def test_page_is_what_the_script_writes():
    render = runpy.run_path(str(REPO / "tools/model_zoo.py"))["render"]
    assert without_config_links(PAGE) == without_config_links(render(DATA))


@pytest.mark.parametrize("row", DATA["rows"], ids=lambda row: f"{row['section']}-{row['Backbone']}")
def test_every_published_figure_is_in_its_row_of_the_page(row):
    backbone, *_ = row["Backbone"].split(" [")
    figures = [v for k, v in row.items() if k in ("PQ", "AP", "mIoU", "AP50", "mIoU (ms+flip)")]
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {backbone}")]
    assert any(all(f"| {figure} |" in line for figure in figures) for line in rows)


def test_links_of_the_page_lead_to_files():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE):
        assert (REPO / target).exists(), target


def test_tests_that_are_named_as_evidence_exist():
    named = [
        test
        for facts in DATA["evidence"].values()
        for tests in facts["checks"].values()
        for test in tests
    ]
    assert named
    assert all((REPO / test).is_file() for test in named)


def test_page_says_that_nothing_was_measured_here():
    assert "None of them was measured with this repository" in PAGE
