"""Which Ray cluster is meant, with which token, and whether it answers: told within seconds, where Ray would wait for minutes."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

from raykd.scenario.errors import ResourceError

LOCAL = "local"
"""A cluster of its own, ended with what it was started for."""
AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.5
"""From when Ray has been imported to when the cluster must have answered."""


def chosen_address(address: str | None) -> str:
    """The address asked for, else `$RAY_ADDRESS`, else `local`: nothing is guessed."""
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def ready_address(address: str | None) -> str:
    """The chosen address, once a cluster has answered there.

    Raises:
        ResourceError: see `refuse_missing_token` and `check_answers`.
    """
    target = chosen_address(address)
    if target != LOCAL:
        refuse_missing_token()
        check_answers(target)
    return target


def token_file() -> Path | None:
    """Where a token would be read from, which may not exist; None for a user without a home directory."""
    try:
        return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token").expanduser()
    except RuntimeError:
        return None


def has_token() -> bool:
    """Whether Ray would find a token; the token itself is never looked at."""
    file = token_file()
    return bool(os.environ.get(TOKEN)) or (file is not None and file.is_file())


def refuse_missing_token() -> None:
    """Raises `ResourceError` where the environment asks for a token and there is none."""
    if os.environ.get(AUTH_MODE) == "token" and not has_token():
        hint = f"set {TOKEN}, or {TOKEN_PATH}" + (f", or write {file}" if (file := token_file()) else "")
        raise ResourceError(f"{AUTH_MODE} is token, but there is no token: {hint}")


@functools.lru_cache(maxsize=1)
def check_answers(target: str) -> None:
    """Asks a cluster for its versions and nodes, once, and has Ray show its token from now on where the cluster wants one and the
    environment leaves that open: a cluster without tokens loses a process that expects them.

    Args:
        target: `HOST:PORT`, or `auto`.

    Raises:
        ResourceError: nobody listens there, or not Ray; it refuses the token, runs other versions, or this machine is none of its
            nodes.
    """
    if target.startswith("ray://"):
        hint = f"on a node of the cluster give its own address, usually {target.removeprefix('ray://').rpartition(':')[0]}:6379"
        raise ResourceError(f"--address must be HOST:PORT of a cluster, got {target}, which is Ray Client; {hint}")
    if target != "auto":
        _check_listens(target)
    told = _asked(target)
    if "refused" in told:
        raise ResourceError(_refusal(target, told["refused"]))
    if told["wants_token"]:
        os.environ[AUTH_MODE] = "token"
    if not told["is_same"]:
        own_ray, own_python = told["own"]
        raise ResourceError(
            f"the cluster at {target} runs Ray {told['ray']} on Python {told['python']}, and this is Ray {own_ray} on Python "
            f"{own_python}: both must be the same; run raykd from the cluster's environment, or start the cluster from this one"
        )
    if not told["has_node_here"]:
        raise ResourceError(
            f"the cluster at {target} answers, but this machine is none of its nodes; run raykd on one of them "
            "(`ray job submit`, `ray attach`, `kubectl exec`), or join it: `ray start --address HOST:PORT`"
        )


def _check_listens(target: str) -> None:
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ResourceError(f"--address must be HOST:PORT, auto or local, got {target!r}; as in --address 10.0.0.5:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(
            f"no Ray cluster listens at {target} ({reason}); start one or leave --address and RAY_ADDRESS out"
        ) from None


def _asked(target: str) -> dict[str, Any]:
    """What raykd.runtime.ray_probe tells, in a process that is ended if it does not: Ray would retry, or abort its process."""
    command = [sys.executable, "-m", "raykd.runtime.ray_probe", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # Ray has been imported: only now does the time run
        timer = Timer(ANSWER_TIMEOUT_S, process.kill)
        timer.start()
        answer = process.stdout.readline()
        timer.cancel()
        process.kill()
    return json.loads(answer) if answer.strip() else {"refused": "silent"}


def _refusal(target: str, reason: str) -> str:
    if reason == "token" and os.environ.get(AUTH_MODE, "token") == "token" and has_token():
        return f"the cluster at {target} refused the token; put the cluster's own into {TOKEN}, or into {token_file()}"
    if reason == "token" and os.environ.get(AUTH_MODE):
        return (
            f"the cluster at {target} wants a token, and {AUTH_MODE} is {os.environ[AUTH_MODE]}; set it to token, or leave it out"
        )
    if reason == "token":
        return (
            f"the cluster at {target} wants a token, and there is none here; set {TOKEN}, or {TOKEN_PATH}, or write {token_file()}"
        )
    if reason == "none":
        return "auto finds no Ray cluster on this machine; give its address, or leave --address out for one of its own"
    return (
        f"something listens at {target} but does not answer as a Ray cluster does within {ANSWER_TIMEOUT_S:g} s; "
        "give the port of its GCS (`ray start --head --port`, usually 6379), not that of its dashboard or client server"
    )
