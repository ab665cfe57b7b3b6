"""Reports in a browser: nothing is reported on the console, and nothing sticks out of the page."""

from __future__ import annotations

import html
import json
import pathlib
import re
import shutil
import subprocess
import warnings

import pytest
import written_runs

from simclr_tf.report import run_files, run_page, side_by_side

pytestmark = pytest.mark.exhaustive

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Of a phone, and of a screen.
WIDTHS = (360, 1280)
# Shows each page in frames of each width, and then replaces everything by what it measured.
MEASURE = """
<script>
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = frame.contentWindow.innerWidth;
    const scrolls = e =>
      e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
    const outside = [...page.querySelectorAll("main *")].filter(
      e => e.getBoundingClientRect().right > width + 0.5 && !scrolls(e.parentElement));
    found[frame.title] = {
      frame: width,
      content: page.documentElement.scrollWidth,
      height: page.documentElement.scrollHeight,
      outside: outside.map(e => e.outerHTML.slice(0, 80)),
      broken: [...page.images].filter(e => !e.naturalWidth).map(e => e.alt),
    };
  }
  document.body.textContent = JSON.stringify(found);
});
</script>
"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"NOT TESTED: reports in a browser, because none of {', '.join(BROWSERS)} is there"
        warnings.warn(reason, stacklevel=1)  # A skipped test alone is only a letter.
        pytest.skip(reason)
    return found


def _open(browser, path: pathlib.Path, profile: pathlib.Path) -> tuple[str, str]:
    """Returns the document that a page becomes, and what the browser reports."""
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-extensions", "--disable-dev-shm-usage", "--enable-logging=stderr"),
        *(f"--user-data-dir={profile}", "--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def _messages(printed: str) -> list[str]:
    """Returns what pages wrote to the console, with the browser's complaints about them."""
    return [line for line in printed.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a run with long names, of one that is not evaluated, and of both side by side."""
    root = tmp_path_factory.mktemp("browser")
    long = "a_class_with_a_name_" * 6
    result = {**written_runs.RESULT, f"shifts/{long}/accuracy": 0.5}
    first = written_runs.write(root / ("run_" * 30), classes=(long, *"bcdefghij"), result=result)
    second = written_runs.write(root / "second", result=None, evaluated=False)
    runs = [run_files.read(str(folder)) for folder in (first, second)]
    why_not = f"{second}/predictions.parquet does not exist."
    return {
        "run": run_page.render(runs[0]),
        "not evaluated": run_page.render(runs[1]),
        "side by side": side_by_side.render(runs, None, why_not, written_runs.png()),
    }


def test_pages_have_no_messages_and_no_overflow_on_a_phone_and_on_a_screen(
    browser, pages, tmp_path
):
    frames = [
        f'<iframe title="{name}, {width}" width="{width}" height="800" frameborder="0" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for name, page in pages.items()
        for width in WIDTHS
    ]
    path = tmp_path / "frames.html"
    path.write_text("<!DOCTYPE html><body>" + "\n".join(frames) + MEASURE, encoding="utf-8")
    document, printed = _open(browser, path, tmp_path / "profile")
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", document, re.DOTALL)[1]))
    assert len(found) == len(pages) * len(WIDTHS)
    for name, measured in found.items():
        assert measured["frame"] == int(name.split(", ")[1])
        assert measured["height"] > 1000, name  # It was laid out.
        assert measured["outside"] == [], name
        assert measured["content"] <= measured["frame"], name
        assert measured["broken"] == [], name
    assert _messages(printed) == []


def test_the_check_finds_a_page_with_a_message_and_an_overflow(browser, tmp_path):
    bad = "<main><p style='width:500px'>x</p></main><script>console.error('bad')</script>"
    frame = f'<iframe title="bad" width="360" frameborder="0" srcdoc="{html.escape(bad)}"></iframe>'
    path = tmp_path / "frames.html"
    path.write_text(f"<!DOCTYPE html><body>{frame}{MEASURE}", encoding="utf-8")
    document, printed = _open(browser, path, tmp_path / "profile")
    assert '"content":5' in document and "width:500px" in document
    assert len(_messages(printed)) == 1
