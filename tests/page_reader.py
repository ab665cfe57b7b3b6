"""Reads the HTML of a report page, to check it without a browser."""

from __future__ import annotations

import collections
from html import parser

VOID = {"br", "hr", "img", "input", "link", "meta"}
URLS = {"src", "href", "xlink:href", "action", "poster", "data", "srcset"}


class Page(parser.HTMLParser):
    """The elements of a page.

    Attributes:
        text: all text that is shown.
        attributes: name of an element -> the attributes of each such element.
        values: data-key of a row -> the values of its <data> elements.
        settings: data-setting of a row -> the text of its cells.
        problems: what is wrong with the page as a page: unbalanced or repeated identifiers, other
            files, images without a description.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.attributes = collections.defaultdict(list)
        self.values = collections.defaultdict(list)
        self.settings = collections.defaultdict(list)
        self.problems = []
        self._open, self._row = [], {}
        self._ids, self._references = collections.Counter(), set()
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self._open]
        self.problems += [f"id {name} is used {n} times" for name, n in self._ids.items() if n > 1]
        self.problems += [f"#{name} leads nowhere" for name in self._references - set(self._ids)]

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.attributes[tag].append(found)
        if tag == "tr":
            self._row = found
        if tag == "data" and "data-key" in self._row:
            self.values[self._row["data-key"]].append(found["value"])
        if "id" in found:
            self._ids[found["id"]] += 1
        for name in URLS & found.keys():
            if found[name].startswith("#"):
                self._references.add(found[name][1:])
            elif not found[name].startswith("data:") and not (name == "data" and tag == "data"):
                self.problems.append(f"<{tag}> reads {found[name]}")
        if tag == "img" and not found.get("alt"):
            self.problems.append("an image has no description")
        if any(name.startswith("on") for name in found):
            self.problems.append(f"<{tag}> has a script")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes another element")

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data
        if self._open and self._open[-1] == "td" and "data-setting" in self._row:
            self.settings[self._row["data-setting"]].append(data)
