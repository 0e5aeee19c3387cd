#!/usr/bin/env python
"""Writes MODEL_ZOO.md from docs/model_zoo.json.

    python tools/model_zoo.py            # after editing the JSON
    python tools/model_zoo.py --check    # exit status 1 if the page is out of date

A row is linked to its config as soon as that file exists; what this repository has verified of a
backbone stands under "evidence", with the test that does it.
"""

import argparse
import json
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "docs/model_zoo.json"
PAGE = REPO / "MODEL_ZOO.md"

# Columns that are not figures of merit.
_META = {"section", "table", "config", "Name", "Backbone", "model id", "checkpoint_url", "note"}
_META |= {"published_config_name"}

_HEADER = """\
<!-- Written by tools/model_zoo.py from docs/model_zoo.json; edit that file. -->
# Model zoo

Every figure on this page is **published**: it is what the authors of the original code report for
their weights, on their machines. **None of them was measured with this repository**: neither the
published weights nor the full data sets were at hand while it was built. What was verified instead
is in the column "verified":

* **names**: the network of the config has the published parameter names, shapes and order at full
  size, so the weights load.
* **numbers**: on a small network of this kind with random weights, outputs, losses and gradients
  equal numbers recorded from the published code (fp32; tolerances stand in the tests).
* **peer**: a randomly weighted model of Hugging Face's `transformers` with this kind of backbone
  gives the same logits after conversion, in both directions (1e-4).
* **none yet**: nothing of this repository's own.

Every linked config resolves to the published values, key by key (`tests/test_configs.py`).

Weights load with `MODEL.WEIGHTS <file>`; download them first (nothing is fetched during training).
Checkpoints of Hugging Face and mmdetection are converted by `tools/import_weights.py`; see
[docs/weights.md](docs/weights.md).

```bash
python train_net.py --eval-only --num-gpus 1 \\
  --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml \\
  MODEL.WEIGHTS model_final_94dc52.pkl
```

**Licences.** The code of this repository is MIT. Weights are their authors': those of the
Mask2Former zoo are under [CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)
(non-commercial). ImageNet backbones carry their own licences.
"""


def render(data: dict) -> str:
    """The page.

    Args:
        data: the content of docs/model_zoo.json.
    """
    lines = [_HEADER]
    for section, facts in data["sections"].items():
        lines += [f"## {section}", "", _provenance(facts), ""]
        rows = [row for row in data["rows"] if row["section"] == section]
        for table in dict.fromkeys(row["table"] for row in rows):
            members = [row for row in rows if row["table"] == table]
            lines += [f"### {table}", "", *_table(members, data["evidence"]), ""]
    lines += ["## Where it is verified", ""]
    for family, facts in data["evidence"].items():
        kinds = [
            f"{kind} by " + ", ".join(f"[{Path(test).name}]({test})" for test in tests)
            for kind, tests in facts["checks"].items()
        ]
        lines.append(f"* {family}: {'; '.join(kinds)}")
    return "\n".join(lines) + "\n"


def _provenance(facts: dict) -> str:
    licence = facts["weights"]
    weights = (
        f"Weights: {licence}."
        if licence
        else "Weights: from the authors' repository, under their licence (no addresses here)."
    )
    return " ".join(
        filter(
            None, [f"Published by the authors of {facts['source']}.", weights, facts.get("text")]
        )
    )


def _table(rows: list[dict], evidence: dict) -> list[str]:
    figures = [key for key in rows[0] if key not in _META]
    with_weights = any("checkpoint_url" in row for row in rows)
    header = ["Backbone", *figures, "config", *(["weights"] if with_weights else []), "verified"]
    aligned = ["---", *["---:"] * len(figures), *["---"] * (2 + with_weights)]
    lines = [_line(header), _line(aligned)]
    notes = []
    for row in rows:
        backbone = row["Backbone"]
        variant = re.search(r"\((.+)\)|\+ (.+)", row["Name"])  # "(200 queries)", "+ IBS"
        if variant:
            backbone += f", {variant[1] or variant[2]}"
        if "note" in row:
            notes.append(row["note"])
            backbone += f" [{len(notes)}]"
        cells = [backbone, *(row.get(key, "") for key in figures), _config(row)]
        if with_weights:
            url = row["checkpoint_url"]
            cells.append(f"[{url.rpartition('/')[2]}]({url})")
        lines.append(_line([*cells, _verified(row, evidence)]))
    return lines + [
        line
        for k, note in enumerate(notes, 1)
        for line in ("", f"[{k}] {note[0].upper()}{note[1:]}.")
    ]


def _config(row: dict) -> str:
    config = row["config"]
    if config is None:
        return f"`{row['published_config_name']}` (mmdetection)"
    name = config.rpartition("/")[2]
    return f"[{name}]({config})" if (REPO / config).is_file() else f"`{name}` (not here yet)"


def _verified(row: dict, evidence: dict) -> str:
    kinds = [
        kind
        for facts in evidence.values()
        if row["section"] in facts["sections"] and re.search(facts["backbones"], row["Backbone"])
        for kind in facts["checks"]
    ]
    return ", ".join(dict.fromkeys(kinds)) or "none yet"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks the page; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(arguments)
    page = render(json.loads(DATA.read_text()))
    if not args.check:
        PAGE.write_text(page)
        return 0
    if PAGE.read_text() != page:
        print("MODEL_ZOO.md is out of date: run tools/model_zoo.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
