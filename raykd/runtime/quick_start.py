"""What raykd's own processes do so that they start sooner."""

from __future__ import annotations

import sys
from typing import Any

UNUSED_BY_RAYKD = ("matplotlib", "pandas", "scipy.signal")
"""What MONAI imports where it is installed, for features that raykd never calls: most of what importing MONAI takes."""


def import_monai() -> None:
    """Imports MONAI as if these were not installed. They can be imported afterwards, but MONAI has its plots and tables no more:
    for processes that raykd alone uses, never for a user's own.
    """
    if "monai" in sys.modules:
        return
    import torch  # noqa: F401 (imports what it wants of them by itself)

    hidden = [name for name in UNUSED_BY_RAYKD if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None is Python's way to say that there is no such module
    try:
        import monai  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]
