"""Lets the tests of losses import the batches that they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
