"""d2lite: the part of the detectron2 API that this project and its users' scripts need.

This is not detectron2. It is a small pure-Python distribution of the same import name, written
against detectron2's public interface, for machines on which detectron2 itself is not installed.
A detectron2 in site-packages is always found first. Tell the two apart with::

    getattr(detectron2, "__d2lite__", False)
"""

import warnings

with warnings.catch_warnings():
    # fvcore scripts two losses at import, which torch reports as deprecated to every user.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    import fvcore.nn  # noqa: F401

from detectron2 import _missing
from detectron2.utils.env import setup_environment

# The API version that is implemented; detectron2's main branch still reports 0.6 as well.
__version__ = "0.6"
# Present in d2lite only. See detectron2.utils.collect_env for the user-facing report.
__d2lite__ = True

_missing.install()
__getattr__ = _missing.missing_getattr(__name__)

setup_environment()
