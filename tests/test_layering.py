"""Who may import whom: the table of the design, kept by reading every module, and proof that the guard sees what it should."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "raykd"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
COMPOSITION_ROOTS = {
    "cli.py",
    "launch.py",
    "api.py",
    "watch.py",
    "execution.py",
    "resume.py",
    "failpoints.py",
    "storage.py",
    "staging.py",
    "reproduction.py",
    "__init__.py",
}
COMMANDS = "commands"
"""The folder of the commands, which like the composition roots sees every layer."""

MAY_IMPORT: dict[str, set[str]] = {
    "numerics": set(),
    "scenario": set(),
    "data": {"scenario", "numerics"},
    "models": {"scenario", "numerics"},
    "codecs": {"scenario", "numerics"},
    "methods": {"scenario", "numerics", "models"},
    "federation": {"scenario", "numerics", "data", "models", "methods", "codecs"},
    "runtime": {"federation", "scenario", "methods._base", "methods._context"},
    "planning": {"scenario", "numerics", "data", "models", "methods._base", "methods._context", "federation", "runtime"},
    "leaks": {"scenario", "numerics", "data", "models", "methods._base", "methods._context", "federation"},
    "results": {"scenario.errors"},
    # The base of all errors is the one word that every layer shares.
    "report": {"results", "scenario.errors"},
    "exchange": {"results", "scenario", "models", "numerics", "data.patches", "federation.inference", "federation.segmenter"},
}
"""Parts of raykd that a layer may import beside itself; anything may import `raykd` itself, for its version."""
EVERYWHERE = {"failpoints", "storage"}
"""Leaves that any layer with an outside world may import: all but the pure numerics."""

MAY_USE: dict[str, set[str]] = {
    "numerics": {"torch", "numpy", "monai", "scipy"},
    "scenario": {"pydantic", "pydantic_core", "yaml"},
    "data": {"torch", "numpy", "scipy", "torchio", "monai", "nibabel", "SimpleITK", "safetensors", "pydantic", "pydantic_core"},
    "models": {"torch", "monai", "pydantic"},
    "codecs": {"torch", "pydantic"},
    "methods": {"torch", "pydantic"},
    "federation": {"torch", "numpy", "monai", "safetensors"},
    "runtime": {"torch"},
    "planning": {"torch"},
    "leaks": {"torch"},
    "results": {"pyarrow", "pandas", "numpy", "scipy"},
    "report": {"pandas", "numpy", "matplotlib", "plotly", "jinja2", "markupsafe", "PIL"},
    "exchange": {"pandas", "numpy", "torch", "monai", "safetensors"},
}
"""Third-party packages of a layer."""
RAY_MODULES = [module for module in MODULES if module.startswith("runtime/ray_")]
"""The Ray runtime, and the only modules that may import Ray."""
MAY_USE_ALONE = {
    **{module: {"ray"} for module in RAY_MODULES},
    "data/sources/_dicom_segmentation.py": {"pydicom"},
    "federation/accountant.py": {"opacus"},
    "federation/private_training.py": {"opacus"},
    "results/reader.py": {"yaml"},
    "runtime/quick_start.py": {"monai"},
    # One of several threads at a time may borrow torch's global state.
    "numerics/rng.py": {"threading"},
}
"""What a single module of a layer may use besides."""
IMPURE = {
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}
"""Of the standard library, what pure numerics have no use for: files, clocks, processes, another source of randomness."""

MAX_MODULE_LINES, MAX_METHOD_LINES, MAX_FUNCTION_LINES = 300, 150, 60


def text_of(module: str) -> str:
    return (PACKAGE / module).read_text(encoding="utf-8")


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that is imported, at any depth, under any condition, by statement or by name."""
    package = ["raykd", *Path(module).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in allowed)


def offences(source: str, module: str) -> list[str]:
    """What a module of raykd, named by its path in the package, imports against the table."""
    layer = module.split("/")[0]
    if module in COMPOSITION_ROOTS or layer == COMMANDS:
        return []
    found, leaves = [], set() if layer == "numerics" else EVERYWHERE
    for line, name in imported(source, module):
        top, _, rest = name.partition(".")
        if top == "raykd":
            is_allowed = rest in ("", "__version__") or is_within(rest, {layer} | MAY_IMPORT[layer] | leaves)
        elif top in sys.stdlib_module_names:
            is_allowed = not (layer == "numerics" and top in IMPURE - MAY_USE_ALONE.get(module, set()))
        else:
            is_allowed = top in MAY_USE[layer] | MAY_USE_ALONE.get(module, set())
        if not is_allowed:
            found.append(f"raykd/{module}:{line} imports {name}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert offences(text_of(module), module) == []


def test_every_folder_of_the_package_is_a_layer_of_the_table() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("__pycache__", COMMANDS)}
    assert folders == set(MAY_IMPORT) == set(MAY_USE)
    assert {module for module in MODULES if "/" not in module} == COMPOSITION_ROOTS


def test_the_table_has_no_circle() -> None:
    def below(layer: str, path: tuple[str, ...]) -> None:
        assert layer not in path, f"circle {path}"
        for part in MAY_IMPORT[layer]:
            below(part.split(".")[0], (*path, layer))

    for layer in MAY_IMPORT:
        below(layer, ())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("numerics/params.py", "from raykd.scenario.schema import Strict"),
        ("numerics/params.py", "import raykd.data.case"),
        ("numerics/params.py", "import time"),
        ("numerics/params.py", "import pandas as pd"),
        ("numerics/params.py", "from ..scenario import schema"),
        ("numerics/params.py", "from .. import scenario"),
        ("scenario/schema.py", "import torch"),
        ("scenario/schema.py", "def f():\n    import monai.networks"),
        ("scenario/schema.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
        ("scenario/schema.py", "from raykd.numerics import rng"),
        ("scenario/registry.py", "import importlib\nimportlib.import_module('raykd.methods.fedavg')"),
        ("data/case.py", "from raykd.models.unet import UNet"),
        ("data/sources/phantom.py", "from ...federation import client"),
        ("models/unet.py", "from raykd.data.case import Case"),
        ("methods/fedavg.py", "from raykd.federation.client import Client"),
        ("methods/fedavg.py", "import numpy"),
        ("federation/driver.py", "from raykd.results.writer import RunWriter"),
        ("federation/driver.py", "from raykd import results"),
        ("federation/client.py", "import ray"),
        ("federation/client.py", "from raykd.runtime.ray_backend import RayBackend"),
        ("runtime/in_process.py", "try:\n    import ray\nexcept ImportError:\n    pass"),
        ("runtime/placement.py", "__import__('ray')"),
        ("runtime/in_process.py", "from raykd.methods.dual_kd import DualKD"),
        ("runtime/in_process.py", "from raykd.results.writer import RunWriter"),
        ("results/schema.py", "import torch"),
        ("results/schema.py", "import yaml"),
        ("results/writer.py", "from raykd.scenario.schema import Scenario"),
        ("results/reader.py", "import ray"),
        ("report/page.py", "import torch"),
        ("report/page.py", "from raykd.federation.protocols import Row"),
        ("report/page.py", "from raykd.scenario.load import load_scenario"),
    ],
)
def test_the_guard_sees_a_planted_offence(module: str, source: str) -> None:
    (offence,) = offences(f"import math\n{source}\n", module)
    assert offence.startswith(f"raykd/{module}:")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("numerics/params.py", "import math, hashlib, torch.nn.functional, scipy.ndimage\nfrom raykd.numerics import rng"),
        ("data/federation.py", "import raykd\nfrom raykd.numerics.rng import generator\nfrom .case import Case"),
        ("data/sources/phantom.py", "from .. import case\nfrom ...numerics import rng"),
        ("results/writer.py", "from raykd import __version__\nfrom raykd.scenario.errors import RaykdError"),
        ("results/reader.py", "import yaml"),
        ("runtime/ray_backend.py", "import ray\nfrom ray.util import placement_group\nfrom raykd.methods._base import Method"),
        ("cli.py", "import ray, torch, pandas\nfrom raykd.runtime import ray_backend"),
    ],
)
def test_the_guard_lets_pass_what_is_allowed(module: str, source: str) -> None:
    assert offences(source, module) == []


def test_only_the_modules_of_the_ray_runtime_import_ray() -> None:
    users = [m for m in MODULES if any(name.split(".")[0] == "ray" for _, name in imported(text_of(m), m))]
    assert users == RAY_MODULES


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import raykd", {"torch", "ray", "pandas", "numpy", "pydantic", "yaml"}),
        ("import raykd.scenario.load, raykd.scenario.study", {"torch", "ray", "monai", "pandas"}),
        ("import raykd.results.reader, raykd.report", {"torch", "ray", "monai", "torchio"}),
    ],
)
def test_importing_a_layer_loads_nothing_heavier(statement: str, absent: set[str]) -> None:
    code = f"import sys\n{statement}\nprint(sorted({absent!r} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short(module: str) -> None:
    is_method = module.startswith("methods/") and not module.startswith("methods/_")
    assert len(text_of(module).splitlines()) <= (MAX_METHOD_LINES if is_method else MAX_MODULE_LINES)


@pytest.mark.parametrize("module", MODULES)
def test_a_function_is_short(module: str) -> None:
    functions = [n for n in ast.walk(ast.parse(text_of(module))) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{f.name}, line {f.lineno}": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}
