"""Writes the tables of the documentation that come from the registries.

python docs/tables.py

A table stands between `<!-- table: name -->` and `<!-- end -->`.
"""

import re
from pathlib import Path

from keras_lenet.datasets import DATASETS
from keras_lenet.datasets.registry import FILES
from keras_lenet.training import RECIPES

PAGES = Path(__file__).parent / "pages"


def datasets() -> list[tuple[str, ...]]:
    """Returns the rows of the data sets by name."""
    return [
        ("name", "images", "classes", "training", "test"),
        *(
            (
                f'`"{name}"`',
                info.images,
                str(len(info.class_names)),
                f"{info.train_size:,}",
                f"{info.test_size:,}",
            )
            for name, info in DATASETS.items()
        ),
    ]


def files() -> list[tuple[str, ...]]:
    """Returns the rows of the data sets in files."""
    return [("path", "images", "training and test"), *FILES]


def recipes() -> list[tuple[str, ...]]:
    """Returns the rows of the recipes."""
    return [
        ("recipe", "model", "steps", "batch size", "what it is"),
        *(
            (
                f"`{name}`",
                f"`{recipe.model}`",
                str(recipe.steps or f"{recipe.epochs} epochs"),
                str(recipe.batch_size),
                recipe.description,
            )
            for name, recipe in RECIPES.items()
        ),
    ]


TABLES = {"datasets": datasets, "files": files, "recipes": recipes}


def with_tables(text: str) -> str:
    """Returns a page with its tables as the registries say."""

    def table(match: re.Match[str]) -> str:
        header, *rows = TABLES[match[1]]()
        lines = [header, ("---",) * len(header), *rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"<!-- table: {match[1]} -->\n{body}\n<!-- end -->"

    return re.sub(
        r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL
    )


if __name__ == "__main__":
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")
