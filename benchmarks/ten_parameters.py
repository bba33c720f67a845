"""A network of ten parameters, installed as a plug-in: with it, what a round costs is what the engine costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

from torch import nn

from raykd.models._base import TappedNetwork
from raykd.scenario.fields import Strict

POINT = "[raykd.networks]\nten_parameters = ten_parameters:TenParameters\n"


class TenParameters(TappedNetwork):
    """Three pointwise convolutions, 1 -> 1 -> 1 -> 3 channels."""

    class Settings(Strict):
        name: Literal["ten_parameters"]

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        first, second, head = nn.Conv3d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Conv3d(1, num_classes, 1)
        self.attach(
            nn.Sequential(first, second, head), head, encoders=[first], bottleneck=second, decoders=[second], strides=[(1, 1, 1)]
        )


def install(folder: Path) -> None:
    """Makes the plug-in known to this process and to those that it starts."""
    metadata = folder / "ten_parameters-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ten_parameters\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(POINT, encoding="utf-8")
    (folder / "ten_parameters.py").write_bytes(Path(__file__).read_bytes())
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
