import contextlib
import importlib.util
import json
import re

import accuracy
import corruptions
import drawings
import handwritten
import keras
import numpy as np
import paper
import pytest
import robustness
import strings
import throughput
from subjects import CHECKED_EPOCHS, SUBJECTS

from keras_lenet import LeNet5, datasets
from keras_lenet.calibration import fit_temperature
from keras_lenet.saving import read_preset
from tests.helpers import (
    BACKEND,
    HAS_TENSORFLOW,
    needs_tensorflow,
    on_torch,
    run_python,
)

RUN = """
import os, runpy, sys

path = sys.argv.pop(1)
sys.path.insert(0, os.path.dirname(path))
runpy.run_path(path, run_name="__main__")
"""
IMAGES = 300

# Subjects run in processes with their own backends, so test once.
pytestmark = on_torch


@pytest.fixture(scope="module")
def subjects():
    """Returns the names of Keras subjects and of loops that can run."""
    names = [f"fit {BACKEND}", f"sequential {BACKEND}", f"bare {BACKEND}"]
    if importlib.util.find_spec("torch"):
        names += ["pytorch eager"]
    if importlib.util.find_spec("jax"):
        names += ["jax loop"]
    if HAS_TENSORFLOW:
        names += ["tensorflow loop"]
    return [name for name in names if name in SUBJECTS]


@pytest.fixture(scope="module")
def tiny_run(subjects, tmp_path_factory):
    """Returns the output and the records of a run on a few images."""
    output = tmp_path_factory.mktemp("benchmarks") / "results.jsonl"
    printed = run_python(
        RUN,
        throughput.__file__,
        *("--subjects", *subjects),
        *("--measures", "train", "predict"),
        *("--batch-sizes", "100"),
        *("--images", str(IMAGES)),
        *("--repetitions", "1"),
        *("--output", str(output)),
    )
    lines = output.read_text(encoding="utf-8").splitlines()
    return printed, [json.loads(line) for line in lines]


def make_record(subject="pytorch eager", speeds=(100.0, 110.0, 90.0), **other):
    return {
        "subject": subject,
        "measure": "train",
        "batch_size": 125,
        "parameters": 61_706,
        "images": 3000,
        "loss": 0.5,
        "first_seconds": 1.0,
        "memory_growth_mib": None,
        "images_per_second": list(speeds),
        **other,
    }


def test_all_subjects_have_the_same_initial_weights(tiny_run, subjects):
    _, records = tiny_run
    predicted = [r for r in records if r["measure"] == "predict"]
    trained = [r for r in records if r["measure"] == "train"]
    assert [record["subject"] for record in trained] == subjects
    assert {record["parameters"] for record in records} == {61_706}
    # Other weights would change the losses by some hundredths.
    losses = [record["loss"] for record in predicted]
    assert len(losses) >= 2
    np.testing.assert_allclose(losses, losses[0], atol=1e-4)


def test_all_subjects_train_alike(tiny_run):
    _, records = tiny_run
    trained = [record for record in records if record["measure"] == "train"]
    assert {record["images"] for record in trained} == {CHECKED_EPOCHS * IMAGES}
    throughput.check(trained)
    started = next(r["loss"] for r in records if r["measure"] == "predict")
    assert all(record["loss"] < started for record in trained)


def test_records_describe_the_machine_and_versions(tiny_run, subjects):
    printed, records = tiny_run
    for record in records:
        assert record["processors"] >= 1
        assert record["versions"]["keras"] == keras.__version__
        assert len(record["matrix_gflops"]) == 2
        (speed,) = record["images_per_second"]
        assert speed > 0
    for name in subjects:
        assert f"| {name} |" in printed


def test_a_missing_framework_is_reported_and_left_out(
    tmp_path, monkeypatch, capfd
):
    (tmp_path / "torch.py").write_text("raise ImportError('no such thing')")
    monkeypatch.syspath_prepend(tmp_path)
    arrays = tmp_path / "arrays.npz"
    data = throughput.load_images("digits", 10)
    np.savez(arrays, *throughput.initial_arrays(), **data)
    with contextlib.ExitStack() as stack:
        assert not throughput.start_workers(["pytorch eager"], arrays, stack)
    assert "left out: pytorch eager (no such thing)" in capfd.readouterr().err


def test_a_failing_subject_raises_with_its_name_and_error(tmp_path):
    worker = throughput.Worker("jax loop", tmp_path / "missing.npz")
    with (
        contextlib.closing(worker),
        pytest.raises(
            RuntimeError, match=r"(?s)jax loop failed.*FileNotFoundError"
        ),
    ):
        worker.ask("run")


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"parameters": 61_707}, "parameters .* 61706. Received: odd 61707"),
        ({"images": 2999}, "images .* 3000. Received: odd 2999"),
        ({"loss": 0.67}, "loss .* 0.5. Received: odd 0.67"),
        ({"loss": float("nan")}, "loss .* 0.5. Received: odd nan"),
    ],
)
def test_a_subject_that_does_different_work_raises(difference, message):
    others = [make_record("fit jax"), make_record("fit torch")]
    throughput.check([make_record("odd", loss=0.66), *others])
    with pytest.raises(ValueError, match=message):
        throughput.check([make_record("odd", **difference), *others])


def test_untrained_losses_must_agree_closely():
    common = {"measure": "predict"}
    others = [make_record("fit jax", **common), make_record(**common)]
    throughput.check([make_record("odd", loss=0.504, **common), *others])
    with pytest.raises(ValueError, match=r"Received: odd 0\.506"):
        throughput.check([make_record("odd", loss=0.506, **common), *others])


def test_the_table_has_ratios_to_the_fastest_pytorch_loop():
    table = throughput.make_table(
        [
            # It is twice as fast in every round, although rounds differ.
            make_record("fit jax", (200, 300, 100)),
            make_record("pytorch eager", (100, 150, 50)),
            make_record("pytorch channels-last", (99, 149, 49)),
        ],
        gflops=1.0,
    )
    assert "÷ pytorch eager" in table
    (row,) = [line for line in table.splitlines() if "| fit jax |" in line]
    assert "| 2.00 (2.00 to 2.00) |" in row
    assert "| 200 | 150 to 250 |" in row


def test_the_table_has_the_ratio_of_fit_to_its_bare_step():
    records = [
        make_record("fit jax", (90, 180)),
        make_record("bare jax", (100, 200)),
    ]
    table = throughput.make_table(records, gflops=1.0)
    assert "fit jax ÷ bare jax: 0.90 (0.90 to 0.90)" in table


def test_latencies_are_medians_over_rounds():
    record = make_record(
        measure="latency", microseconds=[[1, 4, 9], [2, 5, 10], [3, 6, 50]]
    )
    table = throughput.make_table([record], gflops=1.0)
    assert "| pytorch eager | 2 | 5 | 10 | 1.00" in table


def test_the_roofline_fraction_compares_with_the_matrix_product():
    # 100,000 images/s times 2.26 MFLOP are 226 GFLOP/s.
    train = throughput.roofline_fraction("train", 1e5, 452.0)
    predict = throughput.roofline_fraction("predict", 1e5, 833.0)
    assert (train, predict) == pytest.approx((0.5, 0.1))


def test_images_are_real_and_repeat_if_there_are_too_few(digits):
    (images, labels), _ = digits
    data = throughput.load_images("digits", len(images) + 2)
    np.testing.assert_array_equal(data["images"][-2:], images[:2])
    np.testing.assert_array_equal(data["labels"][-2:], labels[:2])
    assert data["images"].dtype == np.uint8
    assert data["images"].any(axis=(1, 2, 3)).all()


def test_the_plot_shows_every_subject(tmp_path):
    records = [
        make_record(name, measure=measure, batch_size=batch_size)
        for name in SUBJECTS
        for measure, batch_size in (
            ("train", 32),
            ("train", 125),
            ("predict", 1000),
        )
    ]
    environment = {"device": "CPU", "processors": 2, "processor": "x"}
    figure = throughput.draw(environment, records)
    lines, bars = figure.axes
    names = [text.get_text() for text in lines.get_legend().get_texts()]
    assert names == list(SUBJECTS)
    assert [t.get_text() for t in bars.get_yticklabels()] == names
    figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "expected at least 1, not 0"),
        (["--subjects", "nobody"], "invalid choice: 'nobody'"),
        (["--images", "124", "--quick"], "at least one batch of 125, not 124"),
        (["--output", "missing/file"], "--output: there is no folder missing"),
        (["--data", "missing"], "--data: .* no such path exists"),
    ],
)
def test_invalid_options_exit_with_a_message(capsys, arguments, message):
    assert throughput.parse_arguments(["--images", "125", "--quick"])
    with pytest.raises(SystemExit):
        throughput.parse_arguments(arguments)
    assert re.search(message, capsys.readouterr().err)


def test_other_options_override_quick():
    options = throughput.parse_arguments(["--quick", "--images", "250"])
    assert (options.images, options.repetitions) == (250, 3)
    assert options.subjects == throughput.QUICK["subjects"]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@needs_tensorflow
def test_accuracy_trains_each_seed_once_and_writes_results(
    tmp_path, monkeypatch, capsys
):
    readme = tmp_path / "README.md"
    marks = "<!-- accuracy.py -->\n{}<!-- end of accuracy.py -->\n"
    readme.write_text("before\n" + marks.format("old\n") + "after\n")
    monkeypatch.setattr(accuracy, "HERE", tmp_path)
    monkeypatch.setattr(accuracy, "FIGURE", tmp_path / "accuracy.png")
    numbers = ["--images", "250", "--epochs", "1", "--state", str(tmp_path)]
    arguments = ["accuracy.py", "--data", "digits", *numbers]
    monkeypatch.setattr(
        "sys.argv", [*arguments, "--seeds", "3", "1", "--ensemble"]
    )
    accuracy.main()
    assert re.search(r"^together: \d+\.\d\d%$", capsys.readouterr().out, re.M)
    lines = (tmp_path / "accuracy.jsonl").read_text().splitlines()
    found = {r["seed"]: r["accuracy"] for r in map(json.loads, lines)}
    assert found.keys() == {1, 3}

    # A seed in the log is not trained again.
    monkeypatch.setattr(accuracy, "train", None)
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "1", "--write"])
    accuracy.main()
    assert f"seed 1: {found[1]:.2%}\nseed 3: " in capsys.readouterr().out
    text = readme.read_text()
    assert text.startswith("before\n<!-- accuracy.py -->\nThe log of seeds")
    assert "| `LeNet5` | accurate | 1 | 250 |" in text
    assert text.endswith("<!-- end of accuracy.py -->\nafter\n")
    mean = (found[1] + found[3]) / 2
    assert f"| {mean:.3%} |" in text and "old" not in text
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@needs_tensorflow
def test_accuracy_writes_the_best_model_as_a_calibrated_preset(
    tmp_path, monkeypatch
):
    numbers = ["--images", "1250", "--epochs", "2", "--state", str(tmp_path)]
    numbers += ["--log", str(tmp_path / "log")]
    path = tmp_path / "preset"
    arguments = ["--data", "digits", "--seeds", "1", "2", "--preset", str(path)]
    monkeypatch.setattr("sys.argv", ["accuracy.py", *arguments, *numbers])
    (x, y), (x_test, y_test) = datasets.load_data("digits")
    errors = {}
    train = accuracy.train_on_brighter_ground

    def record(model, x_train, y_train, seed):
        before = model.get_weights()
        train(model, x_train, y_train, seed)
        assert not np.array_equal(model.get_weights()[0], before[0])
        found = model.predict(x[1250:], verbose=0).argmax(axis=1)
        errors[seed] = np.mean(found != y[1250:])

    monkeypatch.setattr(accuracy, "train_on_brighter_ground", record)
    accuracy.main()
    card = read_preset(path).card
    assert errors.keys() == {1, 2}
    assert errors[card["seed"]] == min(errors.values())
    assert card["held_out_error"] == pytest.approx(
        min(errors.values()), abs=1e-4
    )
    assert card["calibration_images"] == 1437 - 1250
    model = LeNet5.from_preset(path)
    # A calibrated model has temperature 1 on the calibration images.
    rest = model.predict(x[1250:], verbose=0)
    assert fit_temperature(rest, y[1250:]) == pytest.approx(1, abs=1e-3)
    right = model.predict(x_test, verbose=0).argmax(axis=1) == y_test
    assert card["test_accuracy"] == pytest.approx(right.mean(), abs=1e-4)


def test_accuracy_chooses_no_preset_by_the_test_images(monkeypatch, capsys):
    arguments = ["accuracy.py", "--data", "digits", "--preset", "preset"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        accuracy.main()
    assert "--preset needs --images below 60,000" in capsys.readouterr().err


@needs_tensorflow
def test_paper_trains_each_seed_once_and_writes_comparisons(
    tmp_path, monkeypatch, capsys
):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- paper.py -->\nb\n<!-- end of paper.py -->\nc\n")
    monkeypatch.setattr(paper, "HERE", tmp_path)
    monkeypatch.setattr(paper, "FIGURES", tmp_path)
    numbers = ["--batch-size", "50", "--passes", "10", "--images", "200"]
    numbers += ["--log", str(tmp_path / "log")]
    arguments = ["paper.py", "--data", "digits", "--seeds", "1", *numbers]
    monkeypatch.setattr("sys.argv", [*arguments, "--distorted"])
    paper.main()
    assert "seed 1: " in capsys.readouterr().out
    (record,) = paper.read(tmp_path / "log")
    # One epoch through ten times the images is evaluated ten times.
    assert len(record["test_error"]) == 10
    assert len(record["missed"]) == round(360 * record["test_error"][-1])

    # Write tables and curves of this run and of runs as long as the paper's.
    plain = record | {"distorted": False, "images": 60_000}
    plain |= {"passes": 20, "batch_size": 1}
    for name in ("test_error", "running_train_error"):
        plain[name] = [0.5 - 0.02 * n for n in range(20)]
    with (tmp_path / "log").open("a") as log:
        for seed, error in ((1, 0.01), (2, 0.02)):
            plain["test_error"] = [*plain["test_error"][:19], error]
            log.write(json.dumps(plain | {"seed": seed}) + "\n")
    monkeypatch.setattr(paper, "train", None)
    monkeypatch.setattr("sys.argv", [*arguments, "--distorted", "--write"])
    paper.main()
    text = readme.read_text()
    assert text.startswith("a\n") and text.endswith("c\n") and "b\n" not in text
    assert "| 60,000 | 20 | 1 | 2 | 1.500% | 0.707 | 2.00% |" in text
    assert "| 200 distorted | 10 | 50 | 1 |" in text
    for name in ("paper_passes.png", "paper_errors.png", "codes.png"):
        assert (tmp_path / name).stat().st_size > 5_000

    monkeypatch.setattr("sys.argv", [*arguments, "--distorted", "--passes=5"])
    with pytest.raises(SystemExit):
        paper.main()
    assert "--passes must be a multiple of 10" in capsys.readouterr().err


def test_paper_adds_nine_distorted_copies_of_each_image(generator):
    images = generator.integers(1, 256, (6, 28, 28, 1)).astype("uint8")
    mixed, labels = paper.with_distorted(images, np.arange(6), generator)
    assert np.bincount(labels).tolist() == [10] * 6
    assert not np.array_equal(labels, np.tile(np.arange(6), 10))
    for image, label in zip(images, range(6), strict=True):
        same = (mixed == image).all(axis=(1, 2, 3))
        assert labels[same].tolist() == [label]

    # Distorted copies keep the labels, which the brightness encodes here.
    values = np.arange(40, 160, 20, "uint8")
    images = np.tile(values[:, None, None, None], (1, 28, 28, 1))
    mixed, labels = paper.with_distorted(images, np.arange(6), generator)
    np.testing.assert_array_equal(mixed.max(axis=(1, 2, 3)), values[labels])


@pytest.mark.parametrize("digit", range(10))
def test_drawn_digits_leave_ink_in_the_middle_of_the_paper(digit, generator):
    picture = drawings.render(drawings.DIGITS[digit](generator), generator)
    assert picture.shape == (96, 96) and picture.dtype == np.uint8
    ink = picture < 200
    assert ink[24:72, 24:72].any()
    assert ink.mean() < 0.5


@pytest.mark.parametrize("gap", [-2, 0, 3])
def test_rows_of_digits_have_the_gap_between_their_ink(gap, generator):
    images = np.zeros((3, 28, 28, 1), "uint8")
    images[:, 5:20, 10:16] = 255
    row = strings.as_picture(strings.place_digits(images, gap), 0, generator)
    inked = (row < 128).any(axis=0)
    assert np.flatnonzero(inked)[[0, -1]].tolist() == [10, 27 + 2 * gap]
    assert inked.sum() == 18 + 2 * min(gap, 0)


@pytest.mark.parametrize(
    "change",
    [
        handwritten.in_few_pixels,
        handwritten.in_another_width,
    ],
)
def test_changed_digits_have_the_form_of_mnist(change, digits, generator):
    (images, _), _ = digits
    found = [change(image, generator) for image in images[:10]]
    # A few of the smallest digits are mistaken for blank paper.
    found = [changed for changed in found if changed is not None]
    assert len(found) > 7
    for changed in found:
        assert changed.shape == (28, 28, 1) and changed.dtype == np.uint8
        assert changed.max() > 100


def test_what_is_cut_from_a_row_is_a_digit_or_none(digits, generator):
    (images, labels), _ = digits
    found = []
    for seed in generator.integers(0, 2**31, 5):
        found += handwritten.cut_from_a_row(images[:9], labels[:9], seed)
    assert {image.shape for image, _ in found} == {(28, 28, 1)}
    own = {int(label) for _, label in found}
    assert own <= {*labels[:9].tolist(), drawings.NO_DIGIT}
    assert drawings.NO_DIGIT in own and len(own) > 2


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_corruption_is_repeatable_and_leaves_the_input(name, digits):
    images = digits[0][0][:30, ..., 0]
    before = images.copy()
    corrupted = corruptions.corrupt(name, images)
    assert corrupted.dtype == "uint8" and corrupted.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(corruptions.corrupt(name, images), corrupted)
    changed = (corrupted != images).any(axis=(1, 2))
    assert changed.all()


def test_images_are_rotated_scaled_and_shifted_by_the_stated_amount(generator):
    images = generator.integers(0, 256, (3, 28, 28)).astype("uint8")
    right = robustness.transform("shift to the right, pixels", 2, images)
    np.testing.assert_array_equal(right[:, :, 2:], images[:, :, :-2])
    turned = robustness.transform("rotation, degrees", 90, images)
    sides = [np.rot90(images, turns, (1, 2)) for turns in (1, 3)]
    # Rounding may change a pixel by 1.
    assert min(np.abs(turned - side.astype(int)).max() for side in sides) <= 1
    dot = np.zeros((1, 29, 29), "uint8")
    dot[0, 14, 14] = dot[0, 14, 20] = 200
    half = robustness.transform("scale", 0.5, dot)
    assert half[0, 14, 14] == half[0, 14, 17] == 200


def test_robustness_corrects_ten_labels_and_leaves_out_five_images():
    labels = np.full(10_000, 5)
    corrected, known = robustness.correct(labels)
    assert (corrected != labels).sum() == 10
    assert corrected[947] == 9 and (~known).sum() == 5 and (labels == 5).all()


@needs_tensorflow
def test_robustness_prints_a_row_for_each_change(monkeypatch, capsys):
    monkeypatch.setattr(robustness, "MODELS", ("mnist", "original"))
    monkeypatch.setattr(
        "sys.argv", ["robustness.py", "--data", "digits", "--images", "20"]
    )
    robustness.main()
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| images | `mnist` | `original` |"
    assert len(rows) == 2 + 3 + len(corruptions.CORRUPTIONS)
