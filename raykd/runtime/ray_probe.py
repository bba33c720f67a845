"""Asks an address whether a Ray cluster answers there, as a program of its own: `python -m raykd.runtime.ray_probe ADDRESS`."""

from __future__ import annotations

import json
import sys
from typing import Any

from ray._private import services
from ray._private.utils import check_version_info, compute_version_info
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

PATIENCE_S = 10.0
"""Longer than anybody waits for this program."""


def answer(target: str) -> dict[str, Any]:
    """Versions of the cluster and of this process, and whether a node of the cluster is here; or why it `refused`."""
    try:
        address = services.canonicalize_bootstrap_address("auto") if target == "auto" else target
    except ConnectionError:
        address = None
    if address is None:
        return {"refused": "none"}
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
        "has_node_here": bool(nodes & set(services.find_node_ids())),
    }


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
