"""Lets the tests of networks import the tester that they inherit."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("network_tester")
