"""The lessons: their outputs, pictures and notebooks."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers import on_torch

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("docs/pages/lessons/*.md"))
NAMES = [page.stem for page in PAGES]
COLAB = (
    "https://colab.research.google.com/github/keras-lenet/keras_lenet/blob/"
    "main/docs/notebooks"
)

NUMBER = re.compile(r"\d+(?:\.\d+)?")

# How far decimals may be from those on the page. Other processors round
# differently, which moves accuracies by a few of 360 test images: 0.03 are
# eleven. Smaller decimals differ by at most half of the larger one. Whole
# numbers, such as steps and sizes, are the same everywhere.
TOLERANCE = 0.03


def are_near(one, other):
    limit = min(TOLERANCE, max(one, other) / 2)
    return abs(one - other) <= limit


@pytest.fixture(scope="module")
def lessons():
    spec = importlib.util.spec_from_file_location(
        "lessons", ROOT / "docs/lessons.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def agree(published, found):
    """Returns whether texts are equal but for small differences of decimals."""
    if NUMBER.split(published) != NUMBER.split(found):
        return False
    pairs = zip(NUMBER.findall(published), NUMBER.findall(found), strict=True)
    return all(
        are_near(float(one), float(other))
        if "." in one and "." in other
        else one == other
        for one, other in pairs
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0.0, 0.0, True),
        (0.0, 0.01, False),
        (0.0095, 0.006, True),
        (0.0095, 0.02, False),
        (0.92, 0.9, True),
        (0.92, 0.96, False),
    ],
)
def test_small_decimals_must_be_nearer(one, other, expected):
    assert are_near(one, other) is are_near(other, one) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("step 15: accuracy 0.92", True),
        ("step 15: accuracy 0.94", True),
        ("step 15: accuracy 0.96", False),
        ("step 16: accuracy 0.92", False),
        ("step 15.0: accuracy 0.92", False),
        ("step 15: loss 0.92", False),
        ("step 15:", False),
        ("", False),
    ],
)
def test_outputs_agree_if_decimals_differ_by_at_most_3_hundredths(
    found, expected
):
    assert agree("step 15: accuracy 0.92", found) is expected


@on_torch
@pytest.mark.starts_first
@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_prints_and_draws_what_its_page_shows(name, lessons, tmp_path):
    if name == "take-it-anywhere" and shutil.which("cc") is None:
        pytest.skip("the lesson compiles a program in C")
    text = lessons.page(name)
    pytest.importorskip(lessons.backend(text))
    outputs = lessons.run(text, tmp_path)
    for published, found in zip(lessons.published(text), outputs, strict=True):
        assert agree(published, found), f"{published}\n---\n{found}"
    for file in lessons.pictures(name, text).values():
        assert (tmp_path / file).is_file(), file


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_of_a_lesson_is_up_to_date(name, lessons):
    content = lessons.notebook(name, lessons.page(name))
    path = ROOT / f"docs/notebooks/{name}.ipynb"
    assert path.read_text(encoding="utf-8") == content, (
        f"run `python docs/lessons.py {name}`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_of_a_lesson_is_valid(name, lessons):
    nbformat = pytest.importorskip("nbformat")
    text = lessons.page(name)
    content = json.loads(lessons.notebook(name, text))
    nbformat.validate(content)
    code = ["".join(c["source"]) for c in content["cells"] if "outputs" in c]
    first, *others = code
    assert first.startswith("%pip install keras-lenet\n")
    assert f'os.environ["KERAS_BACKEND"] = "{lessons.backend(text)}"' in first
    blocks = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert [source for source in others if source in blocks] == blocks
    # Other cells must not replace names of the lesson.
    assert [source for source in others if source not in blocks] == [
        f'import IPython.display\n\nIPython.display.Image("{file}")'
        for file in lessons.pictures(name, text).values()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_notebook_are_absolute(name, lessons):
    content = lessons.notebook(name, lessons.page(name))
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        assert target.startswith("https://"), target


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_links_its_notebook_and_says_what_to_try_next(name, lessons):
    text = lessons.page(name)
    assert f"\n[Open as a notebook]({COLAB}/{name}.ipynb)\n" in text
    *_, heading, ending = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    assert heading == "What to try next"
    suggestions = ending.split("\n- ")[1:]
    assert len(suggestions) == 3
    assert all("](" in suggestion for suggestion in suggestions)


@pytest.mark.skipif(not PAGES, reason="there are no pages here")
def test_each_picture_is_small_and_on_a_page(lessons):
    shown = [
        picture
        for name in NAMES
        for picture in lessons.pictures(name, lessons.page(name))
    ]
    files = {path.name: path for path in lessons.LESSONS.glob("images/*")}
    assert sorted(files) == sorted(shown)
    for path in files.values():
        assert path.stat().st_size < 100_000, path
