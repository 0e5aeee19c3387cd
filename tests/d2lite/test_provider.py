"""d2lite answers for `detectron2` only where nothing else does."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
FINDER = f"""
import importlib.util as u, sys
sys.path[:] = [p for p in sys.path if not p.endswith("/d2lite")]
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "D2liteFinder"]
s = u.spec_from_file_location("finder", {str(REPO / "d2lite/finder.py")!r})
m = u.module_from_spec(s); s.loader.exec_module(m); m.install(); m.install()
"""


def origin_of_detectron2(cwd, prelude="", **env):
    code = prelude + FINDER + "import detectron2; print(detectron2.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip().splitlines()[-1])


def fake_detectron2(folder):
    (folder / "detectron2").mkdir(parents=True)
    (folder / "detectron2/__init__.py").write_text("")
    return folder


def test_d2lite_answers_when_there_is_no_detectron2(tmp_path):
    assert origin_of_detectron2(tmp_path) == REPO / "d2lite/detectron2/__init__.py"


def test_a_detectron2_on_the_path_wins(tmp_path):
    real = fake_detectron2(tmp_path / "real")
    found = origin_of_detectron2(tmp_path, PYTHONPATH=str(real))
    assert found == real / "detectron2/__init__.py"


def test_a_detectron2_in_editable_form_wins(tmp_path):
    real = fake_detectron2(tmp_path / "real")
    # What setuptools' editable installs do: a finder at the end of sys.meta_path.
    editable = f"""
import sys, importlib.util
class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "detectron2":
            return importlib.util.spec_from_file_location(
                name, {str(real / "detectron2/__init__.py")!r},
                submodule_search_locations=[{str(real / "detectron2")!r}])
sys.meta_path.append(Editable)
"""
    assert origin_of_detectron2(tmp_path, editable) == real / "detectron2/__init__.py"


def test_a_bare_folder_named_detectron2_does_not_hide_d2lite(tmp_path):
    (tmp_path / "detectron2/docs").mkdir(parents=True)
    assert origin_of_detectron2(tmp_path) == REPO / "d2lite/detectron2/__init__.py"
