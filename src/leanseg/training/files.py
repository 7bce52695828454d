"""Small files of a run, each written in one rename."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leanseg.volumes.atomic import written_whole


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write data as indented JSON, in one rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
