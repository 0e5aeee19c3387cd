"""Every published YAML resolves to the published values."""

import gzip
import json
from pathlib import Path

import pytest

from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from mask2former.config import add_maskformer2_config

REPO = Path(__file__).parent.parent
# {path: {key: value}}: the difference of a resolved config against the defaults.
PUBLISHED = json.loads(
    gzip.decompress((REPO / "tests/fixtures/configs/published.json.gz").read_bytes())
)


def default_cfg():
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    return cfg


def flatten(node, prefix=""):
    for key, value in node.items():
        if hasattr(value, "items"):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", sorted(PUBLISHED))
def test_config_resolves_to_the_published_values(path):
    cfg = default_cfg()
    defaults = dict(flatten(cfg))
    cfg.merge_from_file(str(REPO / path))
    difference = {k: v for k, v in flatten(cfg) if v != defaults[k]}
    assert difference == PUBLISHED[path]


@pytest.mark.parametrize(
    "path", sorted(str(p.relative_to(REPO)) for p in (REPO / "configs").rglob("*.yaml"))
)
def test_every_config_of_the_repository_loads(path):
    default_cfg().merge_from_file(str(REPO / path))
