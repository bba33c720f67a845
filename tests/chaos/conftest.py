"""Lets the suite find what it shares with the tests of single faults."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
