"""MONAI without what raykd does not use of it: the same networks and losses, sooner."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from raykd.runtime.quick_start import UNUSED_BY_RAYKD, import_monai
import_monai()
print(*[name for name in UNUSED_BY_RAYKD if name in sys.modules])
import matplotlib, monai, pandas, scipy.signal
from raykd.models._base import build_network
from raykd.numerics import image_similarity, segmentation_losses
from raykd.scenario.registry import NETWORKS
for name in NETWORKS.names():
    assert build_network(NETWORKS.get(name).Settings(name=name), 2, seed=0), name
print("all built")
"""


def test_what_raykd_does_not_use_is_left_out_and_can_still_be_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines() == ["", "all built"], ended.stderr
