"""Writing a run directory so that a reader never meets half a file, however the run ends."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import raykd
from raykd import __version__
from raykd.failpoints import failpoint
from raykd.results.checksums import LOCK, MANIFEST, NAME, Checksums
from raykd.results.columns import BYTES, INTEGER, NUMBER, TEXT, TRUTH, TableSchema
from raykd.results.durable import ASIDES, make_folder
from raykd.results.mirror import Mirror
from raykd.results.schema import COMMON, TABLES
from raykd.scenario.errors import RaykdError, did_you_mean

PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PYTHON_TYPES: dict[pa.DataType, Any] = {INTEGER: Integral, NUMBER: Real, TEXT: str, TRUTH: (bool, np.bool_), BYTES: bytes}
"""What each type accepts; pyarrow alone would silently cut 1.5 down to 1."""
PACKAGES = ("torch", "ray", "monai", "torchio", "numpy", "scipy", "nibabel", "SimpleITK")
STATUSES = ("running", "done", "failed", "interrupted")


def is_vacant(folder: Path) -> bool:
    """Whether a new run may begin in a directory: it is empty, or a run was cut off in it before it had begun."""
    names = {path.name for path in folder.iterdir() if not path.match(ASIDES)}
    return names <= {LOCK} or (NAME in names and names <= {NAME, LOCK, "scenario.yaml"})


def create_run_dir(out: Path) -> Path:
    """Create the directory of a new run, parents included.

    Args:
        out: where; may exist if it is vacant.

    Raises:
        RaykdError: it holds something already, is no directory, or cannot be written.
    """
    try:
        make_folder(out)
        content = None if is_vacant(out) else min(path.name for path in out.iterdir() if path.name != LOCK)
    except OSError as error:
        raise RaykdError(f"{out}: the run directory cannot be created ({error.strerror}); give another with --out") from None
    if content is not None:
        raise RaykdError(
            f"{out}: a new run needs an empty directory, got one that holds {content}; give another, or use `raykd resume`"
        )
    if not os.access(out, os.W_OK | os.X_OK):
        raise RaykdError(f"{out}: the run directory cannot be written to; give another with --out")
    return out


class RunWriter:
    """Writes the tables and the manifest of one run.

    Args:
        run_dir: an existing directory.
        common: `run_id`, `scenario`, `method` and `seed`, put into every row.
        mirror: where all goes besides; it may be given later, before the first file is written.

    Raises:
        ValueError: `common` has other keys than these four.
    """

    def __init__(self, run_dir: Path, common: Mapping[str, str | int], mirror: Mirror | None = None):
        expected = {column.name for column in COMMON}
        if set(common) != expected:
            raise ValueError(f"common must have the keys {', '.join(sorted(expected))}, got {', '.join(sorted(common))}")
        self.run_dir = run_dir
        self.common, self.mirror = dict(common), mirror
        self._checksums = Checksums(run_dir)

    def put(self, path: Path, content: bytes) -> None:
        """Put a file below the run directory there wholly or not at all, its checksum noted."""
        self._checksums.write(path, content)
        if self.mirror:
            self.mirror.put(path)

    def note(self, path: Path, sha256: str) -> None:
        """Note the checksum of a file below the run directory that is there already, flushed to the disk."""
        self._checksums.note(path, sha256)
        if self.mirror:
            self.mirror.put(path)

    def take_up(self) -> list[str]:
        """Clear up what a run that died left behind; gives the damaged files of checkpoints, which are gone.

        Raises:
            RaykdError: a file that a run cannot do without is damaged.
        """
        lost = self._checksums.take_up()
        if self.mirror:
            self.mirror.settle()
        return lost

    def add(self, table: str, rows: Sequence[Mapping[str, Any]], part: str) -> None:
        """Add a part to a table of a run that has ended, and seal its checksums again.

        Raises:
            RaykdError: a file of the run is damaged.
        """
        self._checksums.take_up()
        self.write(table, rows, part)
        self._checksums.seal()

    def end(self, status: str, reason: str | None = None) -> None:
        """Say in the manifest how the run ended, and seal the checksums of all its files."""
        self.update_manifest(status=status, reason=reason)
        self._checksums.seal()
        if self.mirror:
            self.mirror.seal()

    def write(self, table: str, rows: Sequence[Mapping[str, Any]], part: str) -> None:
        """Write rows as one file of a table, in place of the file of the same name.

        Args:
            table: a name in `TABLES`.
            rows: column to value, without the common columns; what a row lacks is null.
            part: the file's name without `.parquet`: letters, digits, `.`, `_`, `-`.

        Raises:
            ValueError: the table, a column or the part's name is unknown, or a value is of another type or missing.
        """
        if table not in TABLES:
            raise ValueError(f"unknown table '{table}'; {did_you_mean(table, TABLES)}")
        if not PART_NAME.fullmatch(part):
            raise ValueError(f"the name of a part must be made of letters, digits, '.', '_' and '-', got '{part}'")
        sink = pa.BufferOutputStream()
        content = _to_arrow(TABLES[table], [{**self.common, **row} for row in rows])
        pq.write_table(content, sink, compression="zstd", write_page_checksum=True)
        folder = self.run_dir / "tables" / table
        make_folder(folder)
        failpoint("table.before_part")
        self.put(folder / f"{part}.parquet", sink.getvalue().to_pybytes())
        failpoint("table.after_part")

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write `manifest.json` anew.

        Raises:
            ValueError: its `status` is none of running, done, failed, interrupted.
        """
        if manifest.get("status") not in STATUSES:
            raise ValueError(f"a manifest's status must be one of {', '.join(STATUSES)}, got {manifest.get('status')!r}")
        text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
        self.put(self.run_dir / MANIFEST, text.encode())

    def update_manifest(self, **fields: Any) -> None:
        """Change some fields of `manifest.json`; a `status` other than running also sets `ended_at`, unless it is given."""
        manifest = json.loads((self.run_dir / MANIFEST).read_text(encoding="utf-8"))
        if fields.get("status", "running") != "running":
            fields = {"ended_at": _now(), **fields}
        self.write_manifest({**manifest, **fields})


def _to_arrow(schema: TableSchema, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table of exactly the schema's types."""
    names = {name: None for row in rows for name in row}
    for name in names:
        if schema.column(name) is None:
            known = (column.name for column in schema.columns)
            raise ValueError(f"table '{schema.name}' has no column '{name}'; {did_you_mean(name, known)}")
    declared = {column.name for column in schema.columns}
    arrow = schema.arrow(extra=tuple(sorted(names.keys() - declared)))
    arrays = []
    for field in arrow:
        values = [row.get(field.name) for row in rows]
        if not field.nullable and None in values:
            raise ValueError(f"table '{schema.name}', row {values.index(None)}: '{field.name}' is required and missing")
        wrong = [value for value in values if value is not None and not isinstance(value, PYTHON_TYPES[field.type])]
        if wrong:
            raise ValueError(f"table '{schema.name}', column '{field.name}' must hold {field.type}, got {wrong[0]!r}")
        arrays.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=arrow)


def new_manifest(scenario_hash: str, run_id: str) -> dict[str, Any]:
    """The manifest of a run that starts now: versions, commit, machine, hash, times and status `running`.

    The commit is that of the current directory, null if that is no checkout; the machine is described without its name.
    """
    return {
        "raykd": __version__,
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "code": code_hash(),
        "git_commit": _git_commit(),
        "machine": {
            "num_cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "scenario_hash": scenario_hash,
        "run_id": run_id,
        "started_at": _now(),
        "ended_at": None,
        "status": "running",
    }


@functools.cache
def code_hash() -> str:
    """SHA-256 (first 16 hex digits) of raykd's own source files."""
    package, sha256 = Path(raykd.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha256.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return sha256.hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
