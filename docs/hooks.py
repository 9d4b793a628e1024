"""Adds the benchmarks and the live page to the site, and keeps it offline."""

import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parent.parent
PRESET = "handwritten"
# What the theme loads from another host, for a search without a server.
SHIM = "https://unpkg.com/iframe-worker/shim"


def on_files(files: Files, config: Any) -> Files:
    """Adds the tables of the benchmarks as a page."""
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    text = text.replace("../docs/pages/", "")
    files.append(File.generated(config, "benchmarks.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Hides the side bar of pages without neighbours."""
    if page.parent is None:
        page.meta.setdefault("hide", ["navigation"])


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Lets a page load the site's own file instead."""
    return output.replace(SHIM, get_relative_url("worker.js", page.url))


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """Does the same for the page that tells what was not found."""
    return output.replace(SHIM, "/worker.js")


def on_post_build(config: Any) -> None:
    """Writes the page that reads drawn digits, which the first page shows."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet import LeNet5, export
    from keras_lenet.saving import read_preset

    path = f"{config.site_dir}/live.html"
    threshold = {"threshold": read_preset(PRESET).card["threshold"]}
    export(LeNet5.from_preset(PRESET), path, "html", metadata=threshold)
