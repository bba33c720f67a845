"""The child that starts a cluster, played by small programs: when it is begun, and what is told where it starts none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from raykd.runtime import ray_own
from raykd.runtime.address import AUTH_MODE
from raykd.scenario.errors import ResourceError


def _played(lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of the child's; it is not asked what it would start."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho begun >> {tmp_path}/log\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(ray_own, "_begun", [])
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray")


def test_a_cluster_that_was_begun_is_the_one_that_is_used_and_it_ends_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(AUTH_MODE, raising=False)
    _played(f"echo 10.0.0.5:6379 $RAY_AUTH_MODE; cat > /dev/null; echo ended >> {tmp_path}/log", tmp_path, monkeypatch)
    ray_own.begin()
    ray_own.begin()
    with ray_own.own_cluster() as address:
        assert address == "10.0.0.5:6379 token"
        assert os.environ[AUTH_MODE] == "token"
        assert (tmp_path / "log").read_text() == "begun\n"
    assert (tmp_path / "log").read_text() == "begun\nended\n"
    assert AUTH_MODE not in os.environ


def test_a_mode_that_the_environment_names_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_MODE, "disabled")
    _played("echo 10.0.0.5:6379 $RAY_AUTH_MODE; cat > /dev/null", tmp_path, monkeypatch)
    with ray_own.own_cluster() as address:
        assert address.endswith("disabled") and os.environ[AUTH_MODE] == "disabled"
    assert os.environ[AUTH_MODE] == "disabled"


def test_why_none_could_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _played("echo Traceback >&2; echo OSError: no room for sockets >&2; exit 1", tmp_path, monkeypatch)
    with (
        pytest.raises(ResourceError, match="could not be started on this machine: OSError: no room for sockets"),
        ray_own.own_cluster(),
    ):
        pass
