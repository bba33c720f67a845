"""raykd: federated few-shot learning with dual knowledge distillation for heterogeneous 3D medical images, simulated on Ray."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Run", "Tables", "__version__", "load_runs", "open_run", "report", "run", "run_study"]
_MODULES = {"run": "raykd.api", "run_study": "raykd.api"}

if TYPE_CHECKING:
    from raykd.api import run, run_study
    from raykd.report import build_report as report
    from raykd.results.reader import Run, Tables, load_runs, open_run


def _name_user() -> None:
    """Gives a user without an entry in the password file, as containers have them, the name that PyTorch and MONAI ask for when
    they are imported. Processes started from here have it, too.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


_name_user()


def __getattr__(name: str) -> Any:
    """Public names are imported when they are asked for, so that `import raykd` and `raykd --help` stay light."""
    if name in __all__:
        from importlib import import_module

        if name == "report":
            return import_module("raykd.report")  # a package that can be called
        return getattr(import_module(_MODULES.get(name, "raykd.results.reader")), name)
    raise AttributeError(f"module 'raykd' has no attribute {name!r}")
