"""What a standing cluster would be given: read from the package that Ray itself would upload."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

import raykd
from raykd.runtime import shipping

SECRETS = (".env", "site.pem", "auth_token", "id_rsa", "prod.env", ".netrc")
LARGE = ("scan.nii.gz", "scan.nii", "model.safetensors", "case.npz", ".git/config", ".venv/pyvenv.cfg")


def test_a_cluster_of_this_machine_and_a_job_are_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipping.runtime_env("local") == {}
    monkeypatch.setenv(shipping.OWN_JOB, "{}")
    assert shipping.runtime_env("10.0.0.5:6379") == {}


def test_no_variable_but_the_cache_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("RAYKD_CACHE", "relative/cache")
    given = shipping.runtime_env("10.0.0.5:6379")
    assert given["env_vars"] == {"RAYKD_CACHE": str(Path.cwd() / "relative/cache")}
    assert "working_dir" not in given


def test_every_module_travels_and_what_was_left_in_the_package_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "raykd"
    shutil.copytree(Path(raykd.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    wanted = {path.relative_to(tmp_path).as_posix() for path in package.rglob("*") if path.is_file()}
    for name in (*SECRETS, *LARGE):
        for folder in (package, package / "data"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("canary")
    monkeypatch.setattr(raykd, "__file__", str(package / "__init__.py"))
    given = shipping.runtime_env("10.0.0.5:6379")
    (module,), excludes = given["py_modules"], given["excludes"]
    assert get_uri_for_directory(module, include_gitignore=True, excludes=excludes).startswith("gcs://")
    archive = tmp_path / "shipped.zip"
    create_package(module, archive, include_gitignore=True, include_parent_dir=True, excludes=excludes)
    with zipfile.ZipFile(archive) as shipped:
        assert {name for name in shipped.namelist() if not name.endswith("/")} == wanted
