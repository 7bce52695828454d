"""Nothing phones home: importing OpenVINO through leanseg opens no connection."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

LISTEN = """
import socket, sys
called = []
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, lambda *a, name=name, **k: called.append(name))
socket.socket.connect = lambda *a, **k: called.append("connect")
"""


def told(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", LISTEN + code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_openvino_sends_nothing() -> None:
    code = """
from leanseg.inference.engines.openvino_import import import_openvino
openvino = import_openvino()
assert openvino is import_openvino()
openvino.Core()
print([name for name in sys.modules if "telemetry" in name and sys.modules[name]], called)
"""
    assert told(code) == "[] []\n"


def test_nor_does_any_use_after_the_engines_are_known() -> None:
    code = """
import leanseg.inference.engines
import openvino
print([name for name in sys.modules if "openvino_telemetry" in name and sys.modules[name]], called)
"""
    assert told(code) == "[] []\n"


def test_the_converter_can_still_be_had() -> None:
    code = """
from leanseg.inference.engines.openvino_import import import_openvino
import_openvino()
from openvino.tools.ovc import convert_model
print(callable(convert_model), called)
"""
    assert told(code) == "True []\n"
