"""Build backend: setuptools, plus the ``.pth`` that makes d2lite answer for ``detectron2``.

Used by d2lite itself and by the mask2former distribution, which bundles it so that
``pip install .`` is all a user needs. d2lite's code never lands in ``site-packages/detectron2``:
it travels in a folder of its own, and ``finder.py`` brings it in where no detectron2 is installed.

Wheel:    <bundle>/finder.py, <bundle>/detectron2/**, zz_<bundle>.pth
Editable: zz_<bundle>.pth that points at this checkout.
"""

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - a backend offers all hooks of setuptools'

HERE = Path(__file__).resolve().parent
# What of d2lite/detectron2 is code or data of the package.
SUFFIXES = {".py", ".json", ".gz"}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """PEP 517 hook: the setuptools wheel with d2lite added."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    bundle = _bundle_name(name)
    files = {f"zz_{bundle}.pth": f"import {bundle}.finder; {bundle}.finder.install()\n".encode()}
    files[f"{bundle}/__init__.py"] = b""
    files[f"{bundle}/finder.py"] = (HERE / "finder.py").read_bytes()
    for path in sorted((HERE / "detectron2").rglob("*")):
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            files[f"{bundle}/{path.relative_to(HERE).as_posix()}"] = path.read_bytes()
    _add_to_wheel(Path(wheel_directory) / name, files)
    return name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """PEP 660 hook: the setuptools editable wheel with a ``.pth`` that points here."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    # One line, because site.py executes .pth lines one by one; by path, because d2lite/ itself
    # must not be on sys.path (it would come before a detectron2 in editable form).
    line = (
        "import importlib.util as u; "
        f"s = u.spec_from_file_location('_d2lite_finder', {str(HERE / 'finder.py')!r}); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); m.install()\n"
    )
    _add_to_wheel(Path(wheel_directory) / name, {f"zz_{_bundle_name(name)}.pth": line.encode()})
    return name


def _bundle_name(wheel_name: str) -> str:
    """``d2lite_bundle`` or ``mask2former_d2lite``: each distribution owns its files alone."""
    distribution = wheel_name.split("-")[0]
    return "d2lite_bundle" if distribution == "d2lite" else f"{distribution}_d2lite"


def _add_to_wheel(wheel: Path, files: dict[str, bytes]) -> None:
    """Rewrites ``wheel`` with ``files`` added and listed in RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        modes = {info.filename: info.external_attr for info in archive.infolist()}
    record = next(name for name in members if name.endswith(".dist-info/RECORD"))
    rows = [row for row in members[record].decode().splitlines() if row]
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    members.update(files)
    members[record] = ("\n".join(rows) + "\n").encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
            info.external_attr = modes.get(name, 0o644 << 16)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
