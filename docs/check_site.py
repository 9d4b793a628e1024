"""Checks a built site: no page needs another host, or is wider than a phone.

    python docs/check_site.py SITE

It needs a browser, such as Chromium.
"""

import argparse
import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_lenet.exporting.web_page import browser

WIDTH = 390
LARGEST_PICTURE = 150_000
# What a browser loads by itself: not the links that a reader follows.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?://[^\s\">]+)"
    r"|<link\b(?=[^>]*rel=\"?(?:stylesheet|icon|preload|preconnect))"
    r"[^>]*href=\"?(https?://[^\s\">]+)"
)

# Shows every page in a frame as wide as a phone.
PROBE = """<!doctype html><meta charset="utf-8"><title></title>
<iframe id="frame" style="border: 0; width: %dpx; height: 800px"></iframe>
<script>
const pages = %s, widths = {}, frame = document.getElementById("frame");
async function measure() {
  for (const page of pages) {
    await new Promise((done) => { frame.onload = done; frame.src = page; });
    widths[page] = frame.contentDocument.documentElement.scrollWidth;
  }
  document.title = JSON.stringify(widths);
}
measure();
</script>
"""


def measure_widths(pages: list[Path]) -> dict[str, int]:
    """Returns the width in pixels that each page needs on a phone."""
    command = browser()
    if command is None:
        raise SystemExit("Expected a browser, such as chromium. Found none.")
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.html"
        urls = [page.resolve().as_uri() for page in pages]
        probe.write_text(PROBE % (WIDTH, json.dumps(urls)), encoding="utf-8")
        done = subprocess.run(
            [
                command,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--allow-file-access-from-files",
                "--virtual-time-budget=120000",
                "--dump-dom",
                probe.as_uri(),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    if not title or not title[1]:
        raise SystemExit("Expected the widths of all pages. Found none.")
    widths: dict[str, int] = json.loads(html.unescape(title[1]))
    return widths


def main() -> None:
    """Prints what is wrong, and exits with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, metavar="SITE")
    site = parser.parse_args().site
    pages = sorted(site.rglob("*.html"))
    faults = [
        f"{page}: loads {address}"
        for page in pages
        for found in LOADED.findall(page.read_text(encoding="utf-8"))
        for address in found
        if address
    ]
    faults += [
        f"{path}: {path.stat().st_size:,} bytes"
        for suffix in ("png", "gif", "svg")
        for path in site.rglob(f"*.{suffix}")
        if path.stat().st_size > LARGEST_PICTURE
    ]
    faults += [
        f"{page}: {width} pixels wide on a screen of {WIDTH}"
        for page, width in measure_widths(pages).items()
        if width > WIDTH
    ]
    print("\n".join(faults) or f"{len(pages)} pages are good")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
