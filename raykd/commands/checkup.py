"""What can be wrong with a machine that runs raykd, each check a sentence with what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

import raykd

Level = Literal["fine", "warning", "wrong"]
GIB = 2.0**30
MAX_SOCKET_PATH, RAY_SOCKET_TAIL = 107, len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Bytes that the path of a socket may have, and those that Ray adds to its directory."""
STORE_SHARE = 0.3
"""Of memory: what Ray gives to its object store unless told otherwise."""
MIN_FREE_TMP, MIN_FREE_CACHE, MIN_MEMORY, MIN_FILES = 2 * GIB, 1 * GIB, 2 * GIB, 1024


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: in a word or two.
        level: `wrong`: runs will fail; `warning`: they may, or be slow or unsafe.
        said: what was found.
        advice: what to do about it; "" where it is fine.
    """

    name: str
    level: Level
    said: str
    advice: str = ""


def judged(name: str, is_fine: bool, said: str, advice: str, level: Level = "warning") -> Check:
    """A check that is fine, or of this level with this advice."""
    return Check(name, "fine", said) if is_fine else Check(name, level, said, advice)


def machine_checks() -> Iterator[Check]:
    """Every check of this machine that starts nothing."""
    yield from versions()
    yield from plugins()
    yield from processors()
    yield memory()
    yield shared_memory()
    yield from ray_directory(temporary_directory())
    yield from cache()
    yield open_files()
    yield gpus()
    yield token()


def versions() -> Iterator[Check]:
    """Python and packages against what raykd says it needs, and against the versions that it was tested with."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        wanted = SpecifierSet(metadata("raykd")["Requires-Python"])
        needed = [Requirement(line) for line in requires("raykd") or []]
    except PackageNotFoundError:
        yield Check("raykd", "wrong", "it is not installed", "pip install raykd, or pip install -e . in a checkout")
        return
    python = platform.python_version()
    yield judged("Python", wanted.contains(python), f"{python}, needed {wanted}", "make an environment with such a Python", "wrong")
    tested = _tested_versions()
    for need in needed:
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield _version_check(need.name, need.specifier, tested.get(need.name.lower()))


def _version_check(name: str, needed: object, tested: str | None) -> Check:
    from packaging.specifiers import SpecifierSet

    assert isinstance(needed, SpecifierSet)
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "wrong", f"not installed, needed {needed}", f"pip install '{name}{needed}'")
    if not needed.contains(found, prereleases=True):
        return Check(name, "wrong", f"{found}, needed {needed}", f"pip install '{name}{needed}'")
    if tested is not None and found.partition("+")[0] != tested:
        return Check(
            name, "warning", f"{found}, tested with {tested}", "numbers may differ in their last bits; see constraints.txt"
        )
    return Check(name, "fine", found)


def _tested_versions() -> dict[str, str]:
    """The versions in a checkout's constraints.txt; none where raykd was installed without one."""
    file = Path(raykd.__file__).parents[1] / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {name.lower(): tested for name, _, tested in (line.partition("==") for line in lines) if tested}


def plugins() -> Iterator[Check]:
    """Plug-ins that are installed and cannot be used."""
    from raykd.scenario.registry import refused_plugins

    for sentence in refused_plugins():
        yield Check("plug-in", "warning", sentence, "mend it, or uninstall it")


def processors() -> Iterator[Check]:
    """CPUs, and threads that libraries would take by themselves."""
    usable = len(os.sched_getaffinity(0))
    yield judged(
        "CPUs",
        usable >= (os.cpu_count() or 1),
        f"{usable} of {os.cpu_count()} may be used",
        "Ray counts all: start it with --num-cpus",
    )
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and (not threads.isdigit() or int(threads) > usable):
        yield Check("OMP_NUM_THREADS", "warning", threads, f"unset it, or set it to at most {usable}")
    else:
        yield Check("OMP_NUM_THREADS", "fine", threads or "not set; workers have resources.threads_per_client threads")


def memory() -> Check:
    """What this machine, or its container, may use."""
    total = memory_bytes()
    return judged("memory", total >= MIN_MEMORY, f"{total / GIB:.1f} GiB", "use a machine with more, and set resources.slots: 1")


def memory_bytes() -> float:
    """Bytes of memory that this machine has, or its container may use."""
    from raykd.planning.machines import this_node

    return float(this_node()["Resources"]["memory"])


def shared_memory() -> Check:
    """/dev/shm, where Ray puts its object store; on disk, and slow, where it does not fit."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check(
            "/dev/shm", "warning", "not there", f"Ray uses {temporary_directory()} instead, which is slow; mount a tmpfs there"
        )
    size, wanted = shutil.disk_usage(folder).total, STORE_SHARE * memory_bytes()
    said = f"{size / GIB:.1f} GiB, Ray's object store wants {wanted / GIB:.1f} GiB"
    return judged("/dev/shm", size >= wanted, said, f"start the container with --shm-size={wanted / GIB:.0f}g")


def temporary_directory() -> Path:
    """The directory in which Ray makes its own: as `get_user_temp_dir` of Ray has it on Linux."""
    return Path(os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp")))


def ray_directory(folder: Path) -> Iterator[Check]:
    """Where Ray keeps sockets, logs and what does not fit into memory."""
    name = f"Ray's directory {folder}"
    if not folder.is_dir():
        yield Check(name, "wrong", "there is no such directory", "make it, or set RAY_TMPDIR to a short path where you may write")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Check(name, "wrong", "nothing can be written there", "set RAY_TMPDIR to a short path where you may write")
        return
    free, room = shutil.disk_usage(folder).free, MAX_SOCKET_PATH - len(os.fsencode(str(folder / "ray"))) - RAY_SOCKET_TAIL
    yield judged(name, free >= MIN_FREE_TMP, f"{free / GIB:.1f} GiB free", "free some, or set RAY_TMPDIR to a short path elsewhere")
    said = f"{room} bytes left of the {MAX_SOCKET_PATH} that the path of a socket may have"
    yield judged("socket paths", room >= 0, said, "set RAY_TMPDIR to a shorter path", "wrong")


def cache() -> Iterator[Check]:
    """Where raykd keeps what it has prepared."""
    from raykd.commands.tables import bytes_text
    from raykd.data.cache import entries
    from raykd.scenario.errors import RaykdError
    from raykd.storage import cache_dir, refuse_unwritable

    advice = "set RAYKD_CACHE to a directory where you may write"
    try:
        folder = cache_dir().absolute()
        refuse_unwritable(folder, advice)
    except RaykdError as error:
        yield Check("cache", "wrong", str(error).removesuffix(f"; {advice}"), advice)
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free, used = shutil.disk_usage(there).free, sum(entry.num_bytes for entry in entries())
    said = f"{folder} holds {bytes_text(used)}, {bytes_text(free)} free"
    yield judged("cache", free >= MIN_FREE_CACHE, said, "raykd cache prune, or set RAYKD_CACHE to a larger disk")


def open_files() -> Check:
    """Files that one process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judged("open files", soft >= MIN_FILES, f"at most {soft}", f"ulimit -n {min(65_536, hard)} before Ray is started")


def gpus() -> Check:
    """What torch sees, against what the driver's device files say is there."""
    import torch

    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Check("GPUs", "fine", f"torch sees {names}")
    if not devices:
        return Check("GPUs", "fine", "none; clients run on CPUs")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    advice = "install a torch for this driver's CUDA, and unset CUDA_VISIBLE_DEVICES"
    return Check("GPUs", "warning", f"{len(devices)} here, but torch ({built}) sees none", advice)


def token() -> Check:
    """Who may read the token that opens a cluster; the token itself is not read."""
    from raykd.runtime.address import token_file

    file = token_file()
    if file is None or not file.is_file():
        return Check("token", "fine", "no file; a cluster with token authentication needs one")
    mode = stat.S_IMODE(file.stat().st_mode)
    return judged("token", not mode & 0o077, f"{file} has mode {mode:04o}", f"chmod 600 {file}: others can read it")
