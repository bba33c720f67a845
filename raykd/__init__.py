"""raykd: federated few-shot learning with dual knowledge distillation for heterogeneous 3D medical images, simulated on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Run", "Tables", "__version__", "load_runs", "open_run", "run"]

if TYPE_CHECKING:
    from raykd.api import run
    from raykd.results.reader import Run, Tables, load_runs, open_run


def __getattr__(name: str) -> Any:
    """Public names are imported when they are asked for, so that `import raykd` and `raykd --help` stay light."""
    if name == "run":
        from raykd.api import run

        return run
    if name in __all__:
        from raykd.results import reader

        return getattr(reader, name)
    raise AttributeError(f"module 'raykd' has no attribute {name!r}")
