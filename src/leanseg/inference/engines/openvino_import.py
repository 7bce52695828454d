"""OpenVINO without what its import does besides.

`import openvino` tells a statistics server on the internet that it was imported, unless somebody
has declined on this machine. Nothing that leanseg runs may do that. The package that sends is one
that OpenVINO can do without; and without its converter of other formats, which is not needed
here either, the import takes a third of the time.
"""

from __future__ import annotations

import sys
from typing import Any

_SENDER = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"


def forbid_telemetry() -> None:
    """Let every later import of the package that sends statistics fail, as if it were absent."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault(_SENDER, None)


def import_openvino() -> Any:
    """The package `openvino`; whoever needs its converter can still import that."""
    forbid_telemetry()
    modules: dict[str, Any] = sys.modules
    if "openvino" not in modules:
        # What is None there cannot be imported; OpenVINO expects that its tools may be absent.
        modules[_CONVERTER] = None
        try:
            import openvino  # noqa: F401
        finally:
            modules.pop(_CONVERTER, None)
    return modules["openvino"]
