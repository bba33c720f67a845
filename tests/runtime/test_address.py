"""Which cluster is meant, and what does not answer, without any cluster."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raykd.runtime import address
from raykd.scenario.errors import ResourceError


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home without a token, and none of Ray's variables."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", address.AUTH_MODE, address.TOKEN, address.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where somebody listens and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_the_option_comes_before_the_variable_and_that_before_a_cluster_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address.chosen_address(None) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert address.chosen_address(None) == "10.0.0.5:6379"
    assert address.chosen_address("auto") == "auto"


@pytest.mark.parametrize("where", ["variable", "path", "home"])
def test_a_token_at_hand_is_found(where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not address.has_token()
    file = tmp_path / ("elsewhere" if where == "path" else ".ray/auth_token")
    if where == "variable":
        monkeypatch.setenv(address.TOKEN, "canary-token")
    else:
        file.parent.mkdir(exist_ok=True)
        file.write_text("canary-token")
    if where == "path":
        monkeypatch.setenv(address.TOKEN_PATH, str(file))
    assert address.has_token()


@pytest.mark.parametrize(("wants_token", "mode"), [(True, "token"), (False, None)])
def test_a_token_is_shown_where_the_cluster_wants_one(wants_token: bool, mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address.AUTH_MODE, "as it was")  # so that what is set below is undone, too
    monkeypatch.delenv(address.AUTH_MODE)
    monkeypatch.setattr(address, "_check_listens", lambda target: None)
    told = {"wants_token": wants_token, "is_same": True, "has_node_here": True}
    monkeypatch.setattr(address, "_asked", lambda target: told)
    address.check_answers.__wrapped__("10.0.0.5:6379")
    assert os.environ.get(address.AUTH_MODE) == mode


def test_a_mode_of_token_without_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address.AUTH_MODE, "token")
    with pytest.raises(ResourceError, match="there is no token"):
        address.refuse_missing_token()


@pytest.mark.parametrize(
    ("target", "words"),
    [("nonsense", "HOST:PORT"), ("10.0.0.5:x", "HOST:PORT"), ("ray://10.0.0.5:10001", "10.0.0.5:6379"), ("127.0.0.1:1", "listens")],
)
def test_what_is_no_address_or_where_nobody_listens_is_refused_at_once(target: str, words: str) -> None:
    start_s = time.monotonic()
    with pytest.raises(ResourceError, match=words):
        address.check_answers(target)
    assert time.monotonic() - start_s < 5


def test_who_listens_and_is_not_ray_is_named_in_time(silent: str) -> None:
    with pytest.raises(ResourceError, match="does not answer as a Ray cluster") as refused:
        address.check_answers(silent)
    assert silent in str(refused.value)
