"""The project uses public detectron2 names only, and the provider in use has those it needs."""

import ast
import importlib
import inspect
import json
from pathlib import Path

import pytest

import detectron2

ROOT = Path(__file__).resolve().parents[2]
USAGE_INDEX = ROOT / "tests" / "fixtures" / "d2lite" / "usage_index.json"
SOURCES = ("mask2former", "train_net.py", "demo", "predict", "tools", "datasets")
IS_D2LITE = getattr(detectron2, "__d2lite__", False)


def public_names() -> dict[str, set[str]]:
    """Module -> names, from the list that d2lite carries (it is detectron2's, not d2lite's)."""
    path = ROOT / "d2lite" / "detectron2" / "_public_names.json"
    return {module: set(names.split()) for module, names in json.loads(path.read_text()).items()}


PUBLIC = public_names()


class DetectronUse(ast.NodeVisitor):
    """Collects (line, module, name) of every use of detectron2 in a file.

    Follows imports, and attributes of names that stand for a detectron2 module
    (``T.ResizeTransform`` after ``from detectron2.data import transforms as T``).
    """

    def __init__(self, tree: ast.AST) -> None:
        self.uses: list[tuple[int, str, str]] = []
        self.modules: list[tuple[int, str]] = []
        self._aliases: dict[str, str] = {}
        self._attributes: list[ast.Attribute] = []
        self.visit(tree)
        for node in self._attributes:
            module = self._module_of(node.value)
            if module in PUBLIC:
                self.uses.append((node.lineno, module, node.attr))

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.split(".")[0] == "detectron2":
                self.modules.append((node.lineno, name.name))
                self._aliases[name.asname or "detectron2"] = (
                    name.name if name.asname else "detectron2"
                )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level or module.split(".")[0] != "detectron2":
            return
        self.modules.append((node.lineno, module))
        for name in node.names:
            self.uses.append((node.lineno, module, name.name))
            self._aliases[name.asname or name.name] = f"{module}.{name.name}"

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attributes.append(node)
        self.generic_visit(node)

    def _module_of(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            parent = self._module_of(node.value)
            return f"{parent}.{node.attr}" if parent else None
        return None

    def problems(self) -> list[str]:
        found = [
            f"line {line}: unknown module {module}"
            for line, module in self.modules
            if module not in PUBLIC
        ]
        for line, module, name in self.uses:
            dunder = name.startswith("__") and name.endswith("__")
            known = name in PUBLIC.get(module, ()) or f"{module}.{name}" in PUBLIC
            if module in PUBLIC and not known and not dunder:
                found.append(f"line {line}: {name} is no public name of {module}")
        return found


def problems_of(source: str) -> list[str]:
    return DetectronUse(ast.parse(source)).problems()


def source_files() -> list[Path]:
    files: list[Path] = []
    for name in SOURCES:
        path = ROOT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.exists()
    return files


def test_project_uses_public_detectron2_names_only():
    files = source_files()
    assert len(files) > 10
    found = {str(f.relative_to(ROOT)): problems_of(f.read_text(encoding="utf-8")) for f in files}
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from detectron2.layers import Conv2D",
        "from detectron2.layer import Conv2d",
        "import detectron2.datas",
        "from detectron2.utils.visualizer import _create_text_labels",
        "from detectron2.data import transforms as T\nT.ResizeShortestEgde(3)",
        "import detectron2.utils.comm as comm\ncomm.get_wold_size()",
        "import detectron2\ndetectron2.utils.comm.rank",
    ],
)
def test_walker_reports_names_that_are_not_public(source):
    assert len(problems_of(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from detectron2.layers import Conv2d, ShapeSpec as S\nS.anything",
        "import detectron2\nprint(detectron2.__version__)",
        "from detectron2.data import transforms as T\nT.ResizeShortestEdge(3).get_transform",
        "from .detectron2 import whatever",
        "import detectron2.utils.comm as comm\ncomm.get_world_size()",
    ],
)
def test_walker_accepts_public_names(source):
    assert problems_of(source) == []


def usage_index() -> list[tuple[str, str, str]]:
    """(module or class, name, signature) of everything the published code bases use."""
    index = json.loads(USAGE_INDEX.read_text())
    return [(owner, name, sig) for owner, names in index.items() for name, sig in names.items()]


def resolve(owner: str, name: str):
    """``owner.name`` where ``owner`` is a module, or an object inside one."""
    parts = owner.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        return getattr(found, name) if name else found
    raise ModuleNotFoundError(owner)


@pytest.mark.parametrize(
    ("owner", "name"), [(o, n) for o, n, _ in usage_index()], ids=lambda x: x or "itself"
)
def test_every_used_name_can_be_imported(owner, name):
    resolve(owner, name)


def parameters_of(signature: str) -> list[tuple[str, str, str | None]]:
    """(name, kind, default) of a signature written as text; odd defaults become None."""
    cleaned = signature.replace("<default reader to int array>", "None").replace("30 min", "None")
    arguments = ast.parse(f"def f{cleaned}: pass").body[0].args
    plain = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    rows = [(a.arg, "plain", d) for a, d in zip(plain, defaults)]
    rows += [(a.arg, "keyword", d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    return [(name, kind, ast.unparse(d) if d is not None else None) for name, kind, d in rows]


@pytest.mark.skipif(not IS_D2LITE, reason="states d2lite's fidelity")
@pytest.mark.parametrize(
    ("owner", "name", "signature"),
    [
        row
        for row in usage_index()
        if row[2]
        and row[0].startswith("detectron2")
        and "REGISTRY" not in row[0]
        # PathManager's methods are iopath's; BoxMode's and catalogs' are checked by behaviour
        and "PathManager" not in row[0]
    ],
    ids=lambda x: str(x)[:40],
)
def test_signatures_take_what_detectron2s_take(owner, name, signature):
    target = resolve(owner, name)
    if inspect.isclass(target):
        target = target.__init__
    actual = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in actual.values())
    positional = [
        p.name
        for p in actual.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"
    ]
    expected = parameters_of(signature)
    wanted = [parameter for parameter, kind, _ in expected if kind == "plain"]
    if not any(p.kind is p.VAR_POSITIONAL for p in actual.values()):
        assert positional[: len(wanted)] == wanted
    for parameter, kind, default in expected:
        if parameter not in actual:
            assert takes_any, parameter
            continue
        assert kind == "plain" or actual[parameter].kind is inspect.Parameter.KEYWORD_ONLY
        if default is not None:
            assert actual[parameter].default is not inspect.Parameter.empty, parameter
