"""What the processes of a standing cluster are given: this raykd, so that they run the code of who asked, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import raykd
from raykd.runtime.address import LOCAL

EXCLUDES = (
    "__pycache__",
    ".git",
    ".venv",
    "*.nii",
    "*.nii.gz",
    "*.nrrd",
    "*.mha",
    "*.dcm",
    "*.npz",
    "*.safetensors",
    ".env",
    "*.env",
    "*.pem",
    "*.key",
    "id_rsa*",
    "id_ed25519*",
    "*auth_token*",
    ".netrc",
)
"""Patterns, as .gitignore has them, of what never travels even where somebody has left it in the package: images, and secrets."""
OWN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in a submitted job, whose own runtime environment says what its processes are given."""
VARIABLES = ("RAYKD_CACHE",)


def runtime_env(target: str) -> dict[str, Any]:
    """Ray's runtime environment for the processes of a run: the package of raykd as it is here, and where its cache is.

    The current directory, data and plug-ins do not travel: plug-ins are packages installed on every node, and data lies where
    every node sees it.

    Args:
        target: an address as `chosen_address` gives it; nothing is given on a cluster of this machine alone, or within a job.
    """
    if target == LOCAL or OWN_JOB in os.environ:
        return {}
    variables = {name: str(Path(os.environ[name]).expanduser().absolute()) for name in VARIABLES if os.environ.get(name)}
    package = Path(raykd.__file__).parent
    return {"py_modules": [str(package)], "excludes": list(EXCLUDES), **({"env_vars": variables} if variables else {})}
