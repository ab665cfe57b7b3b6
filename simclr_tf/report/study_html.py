"""The page of a study as one HTML file, made from its Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import markdown_it
from markdown_it import token as token_lib

from simclr_tf.report import pages


def render(title: str, markdown: str, figures: Mapping[str, str]) -> str:
    """Returns the page, which needs no other file. HTML in the Markdown is shown as text.

    Args:
        title: title of the page.
        markdown: its content.
        figures: name of the file of a figure, as the content links it -> the figure, as SVG.
    """
    parser = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(
        self: Any, tokens: Sequence[token_lib.Token], index: int, options: Any, env: Any
    ) -> str:
        token = tokens[index]
        svg = figures.get(str(token.attrs["src"]))
        if svg is not None:
            encoded = base64.b64encode(svg.encode()).decode()
            token.attrs["src"] = f"data:image/svg+xml;base64,{encoded}"
            token.attrs["class"] = "drawing"
        return self.image(tokens, index, options, env)

    parser.add_render_rule("image", image)
    # Wide tables scroll in a box of their own.
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return pages.fill("study.html.jinja", {"title": title, "content": parser.render(markdown)})
