"""Updates the tables on the pages that come from registries.

python docs/tables.py

A table stands between `<!-- table: name -->` and `<!-- end -->`.
"""

import re
from pathlib import Path

from keras_lenet.datasets import DATASETS
from keras_lenet.datasets.registry import FILES
from keras_lenet.training import RECIPES

PAGES = Path(__file__).parent / "pages"

# Rows of cells by table, the header first.
TABLES = {
    "datasets": [
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
    ],
    "files": [("path", "images", "training and test"), *FILES],
    "recipes": [
        ("recipe", "model", "steps", "batch size", "description"),
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
    ],
}


def update_tables(text: str) -> str:
    """Returns a page's text with its tables up to date."""

    def table(match: re.Match[str]) -> str:
        header, *rows = TABLES[match[1]]
        lines = [header, ("---",) * len(header), *rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"<!-- table: {match[1]} -->\n{body}\n<!-- end -->"

    return re.sub(
        r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL
    )


if __name__ == "__main__":
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(update_tables(text), encoding="utf-8")
