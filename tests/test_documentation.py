"""The documentation: its tables, links, commands and Python blocks."""

import contextlib
import functools
import importlib.util
import re
import shlex
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import keras_lenet
from keras_lenet import (
    LeNet5,
    callbacks,
    datasets,
    original,
    plots,
    recipes,
)
from keras_lenet.cli.parser import make_parser
from keras_lenet.datasets.load import ImageData
from keras_lenet.training import run as training_run
from keras_lenet.version import __version__
from tests.helpers import needs_tensorflow, once

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted(ROOT.glob("docs/pages/**/*.md"))
LESSONS = "docs/pages/lessons/"
# What `docs/hooks.py` makes a page.
GENERATED = {ROOT / "docs/pages/benchmarks.md": ROOT / "benchmarks/README.md"}
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), ROOT / "benchmarks/README.md", *PAGES]
    if path.is_file()
}

# JAX and distributions of Keras do not run on TensorFlow, on which these tests
# run. `tests/reliability/test_distributed.py` tests them.
NEEDS_JAX = ("import jax", "keras.distribution.")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def having(language):
    return [name for name, text in TEXTS.items() if blocks(text, language)]


@pytest.fixture(scope="module")
def tables():
    path = ROOT / "docs/tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_changelog_begins_with_unreleased_changes_or_this_version():
    changes = TEXTS["docs/pages/changelog.md"]
    first = re.search(r"^## (.*)$", changes, re.MULTILINE)[1]
    released = re.fullmatch(
        rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", first
    )
    assert first == "Unreleased" or released


def test_the_reference_has_every_public_name():
    text = "".join(
        TEXTS[name] for name in TEXTS if name.startswith("docs/pages/reference")
    )
    listed = re.findall(r"^::: keras_lenet\.(\S+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    last = {name.rpartition(".")[2] for name in listed}
    names = {*keras_lenet.__all__, *plots.__all__, *callbacks.__all__}
    names |= {*recipes.__all__, *original.__all__}
    modules = {"__version__", "datasets", "plots", "recipes"}
    assert names - last - modules == {"NotebookFigure", "TABLE"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_tables_match_the_registries(page, tables):
    text = page.read_text(encoding="utf-8")
    assert text == tables.update_tables(text), "run `python docs/tables.py`"


@pytest.mark.skipif(not PAGES, reason="there are no pages here")
def test_every_table_is_on_a_page(tables):
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in tables.TABLES:
        assert f"<!-- table: {name} -->\n| " in text


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else ROOT / name
        file = GENERATED.get(file, file)
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [anchor_of(heading) for heading in headings]


def anchor_of(heading):
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", having("bash"))
def test_commands_are_valid(name):
    parser = make_parser()
    for block in blocks(TEXTS[name], "bash"):
        block = re.sub(r"\$\w+", "1", block.replace("\\\n", " "))
        for arguments in re.findall(r"\bkeras-lenet ([a-z][^'#&\n]*)", block):
            parser.parse_args(shlex.split(arguments))


@pytest.fixture
def small_world(tmp_path, monkeypatch, request, digits):
    """Returns the names that the pages assume, in a folder with their files.

    MNIST is replaced by some of the digits, and `fit` takes five steps.
    """
    tensorflow = pytest.importorskip("tensorflow")
    (x, y), _ = digits
    data = ImageData(((x[:500], y[:500]), (x[500:1000], y[500:1000])))
    data.class_names = digits.class_names
    load_data = datasets.load_data
    fit = keras.Model.fit

    def load_few(name="digits", data_dir=None):
        is_known = name in datasets.DATASETS
        return data if is_known else load_data(name, data_dir)

    # `BaseModel.fit` reads its signature.
    @functools.wraps(fit)
    def fit_briefly(self, *args, **kwargs):
        brief = {"epochs": 1, "steps_per_epoch": 5, "verbose": 0}
        return fit(self, *args, **{**kwargs, **brief})

    monkeypatch.setattr(datasets, "load_data", load_few)
    monkeypatch.setattr(training_run, "load_data", load_few)
    monkeypatch.setattr(keras.Model, "fit", fit_briefly)
    # Compiling takes longer than five steps.
    tensorflow.config.run_functions_eagerly(True)
    request.addfinalizer(lambda: tensorflow.config.run_functions_eagerly(False))
    # `SamplePredictions(filepath=None)` needs a notebook.
    shell = SimpleNamespace(kernel=object())
    display = SimpleNamespace(
        display=lambda figure: None, clear_output=lambda: None
    )
    notebook = SimpleNamespace(
        get_ipython=lambda: shell, version_info=(9, 0), display=display
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)

    # The files that the pages read.
    photograph = np.full((300, 400), 200, "uint8")
    photograph[50:150, 300:310] = 40
    Image.fromarray(photograph).save("photo.jpg")
    Image.fromarray(photograph).save("form.png")
    for flower in ("rose", "tulip"):
        folder = tmp_path / "flowers" / flower
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(folder / "0.png")

    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    (x_train, y_train), (x_test, y_test) = data
    return {
        "model": model,
        "x_train": x_train,
        "y_train": y_train,
        "x_test": x_test,
        "y_test": y_test,
    }


@contextlib.contextmanager
def restored_signals():
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(code, name, names):
    program = compile(code, name, "exec")
    if not any(part in code for part in NEEDS_JAX):
        exec(program, names)


def in_small_world(test):
    """Marks a test that uses `small_world`."""
    for mark in (
        once,
        needs_tensorflow,
        # An epoch has five steps, even if the dataset is smaller.
        pytest.mark.filterwarnings("ignore:Your input ran out of data"),
        # KerasTuner.
        pytest.mark.filterwarnings(
            "ignore:(currentThread|getName):DeprecationWarning"
        ),
        # `tf.data` does not run eagerly.
        pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
    ):
        test = mark(test)
    return test


@in_small_world
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in having("python")
        # `test_lessons.py` runs the lessons.
        if "/" in name and not name.startswith(LESSONS)
    ],
)
def test_python_blocks_run(name, small_world):
    keras.utils.set_random_seed(98)
    with restored_signals():
        for block in blocks(TEXTS[name], "python"):
            run(block, name, small_world)


@in_small_world
@pytest.mark.starts_first
@pytest.mark.skipif(not README.is_file(), reason="there is no README.md here")
def test_python_blocks_of_the_readme_run(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    first, *others = blocks(TEXTS["README.md"], "python")
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    assert names["held_out"].history["step"][-1] == 300
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]
    request.getfixturevalue("small_world")
    for block in others:
        run(block, "README.md", names)
