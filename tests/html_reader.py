"""A page as a browser would find it: tags, attributes and text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.scripts: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script" and ("type", "application/json") not in attrs:
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and not data.startswith('{"case":'):
            self.scripts[-1] += data
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += data

    def assert_self_contained(self) -> None:
        """Nothing is fetched, nothing is run but what the policy names, links lead somewhere."""
        addresses = ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
        for tag, name, value in self.attributes:
            if name in addresses:
                assert value.startswith(("#", "data:image/")), (tag, name, value[:80])
            assert not name.startswith("on"), (tag, name)
        (policy,) = (v for tag, name, v in self.attributes if tag == "meta" and "default-src" in v)
        assert policy.startswith("default-src 'none'; img-src data:;")
        digests = (hashlib.sha256(script.encode()).digest() for script in self.scripts)
        allowed = re.findall("'sha256-([^']*)'", policy)
        assert allowed == [base64.b64encode(digest).decode() for digest in digests]
        assert self.tags["link"] == self.tags["iframe"] == 0
        anchors = {value for _, name, value in self.attributes if name == "id"}
        links = {value[1:] for _, name, value in self.attributes if name == "href"}
        assert links <= anchors
