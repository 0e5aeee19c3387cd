"""What the documents show works: Python blocks run, and the files they name exist."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DOCUMENTS = sorted(REPO.glob("*.md"))


def test_the_python_blocks_of_advanced_usage_run(monkeypatch):
    monkeypatch.chdir(REPO)
    text = (REPO / "ADVANCED_USAGE.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 6
    names: dict = {"__name__": "advanced_usage"}
    for block in blocks:  # one after the other in one namespace, as they are read
        exec(compile(block, "ADVANCED_USAGE.md", "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_scripts_named_in_a_document_exist(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    scripts = re.findall(r"(?:python|bash) ([\w./-]+\.(?:py|sh))", text)
    configs = re.findall(r"(configs/[\w./-]+\.yaml)", text)
    missing = [p for p in [*links, *scripts, *configs] if not (REPO / p).exists()]
    assert not missing
