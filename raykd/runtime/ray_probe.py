"""Asks an address whether a Ray cluster answers there, as a program of its own: `python -m raykd.runtime.ray_probe ADDRESS`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ray._private import services
from ray._private.utils import check_version_info, compute_version_info
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from raykd.runtime.address import AUTH_MODE, has_token

PATIENCE_S = 10.0
"""Longer than anybody waits for this program."""


def answer(target: str) -> dict[str, Any]:
    """Versions of the cluster and of this process, whether a node of the cluster is here, and whether it `wants_token`; or why it
    `refused`. A token is shown only where asking without one was refused, unless the environment says so.
    """
    try:
        address = services.canonicalize_bootstrap_address("auto") if target == "auto" else target
    except ConnectionError:
        address = None
    if address is None:
        return {"refused": "none"}
    wants_token = False
    if AUTH_MODE not in os.environ and has_token():
        wants_token = not _answers_without_token(address)
        _use_mode("token" if wants_token else "disabled")
    try:
        client = GcsClient(address=address)
        metadata = json.loads(client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=PATIENCE_S))
        nodes = {node_id.hex() for node_id in client.get_all_node_info(timeout=PATIENCE_S)}
    except AuthenticationError:
        return {"refused": "token"}
    return {
        "ray": metadata["ray_version"],
        "python": metadata["python_version"],
        "own": compute_version_info(),
        "is_same": _is_same(metadata),
        "wants_token": wants_token,
        "has_node_here": bool(nodes & set(services.find_node_ids())),
    }


def _answers_without_token(address: str) -> bool:
    _use_mode("disabled")
    try:
        GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=PATIENCE_S)
    except AuthenticationError:
        return False
    return True


def _use_mode(mode: str) -> None:
    os.environ[AUTH_MODE] = mode
    Config.initialize("")  # Ray has read the environment when it was imported


def _is_same(metadata: dict[str, Any]) -> bool:
    """Whether Ray itself would work with these versions: as exactly as `RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL` says."""
    try:
        check_version_info(metadata, "this process")
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write("imported\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(answer(sys.argv[1])) + "\n")
    sys.stdout.flush()
