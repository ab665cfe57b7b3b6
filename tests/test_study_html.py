"""The page of a study as one HTML file."""

from __future__ import annotations

import base64
import html
import re

from simclr_tf.report import study_html

_PAGE = """# Heads

**Here**: 1 shown. <script>alert(1)</script> {{ 7 * 7 }}

![Heads](heads.svg)

| head | accuracy |
| --- | --: |
| a\\|b & c | 44.5% |

```sh
python run.py --mode=study
```
"""


def test_a_page_has_its_figures_and_tables_within_it():
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text>44.5</text></svg>'
    page = study_html.render("Heads", _PAGE, {"heads.svg": svg})
    (source,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert base64.b64decode(source).decode() == svg
    assert 'alt="Heads"' in page and "heads.svg" not in page
    assert "<title>Heads</title>" in page and "<h1>Heads</h1>" in page
    assert '<div class="scroll"><table>' in page and page.count("</table></div>") == 1
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert [html.unescape(cell) for cell in cells] == ["a|b & c", "44.5%"]


def test_what_looks_like_html_or_a_template_is_text():
    page = study_html.render("<i>", _PAGE, {})
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page and "<title>&lt;i&gt;</title>" in page
