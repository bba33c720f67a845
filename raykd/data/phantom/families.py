"""Every anatomy that the phantom knows, by name."""

from __future__ import annotations

from typing import Any

from raykd.data.phantom.abdomen import Abdomen
from raykd.data.phantom.cardiac import Cardiac
from raykd.data.phantom.casting import CastingCt
from raykd.data.phantom.family import Family
from raykd.data.phantom.knee.family import Knee
from raykd.data.phantom.ultrasound import Ultrasound

FAMILIES: dict[str, Family[Any]] = {
    "knee": Knee(),
    "abdomen_ct": Abdomen(),
    "cardiac_mr": Cardiac(),
    "ultrasound": Ultrasound(),
    "casting_ct": CastingCt(),
}
