import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.image import imsave
from PIL import Image, ImageDraw

from keras_lenet import (
    LeNet5,
    OriginalLeNet5,
    RandomDistortion,
    __version__,
    recipes,
    train,
)
from keras_lenet.cli import main
from keras_lenet.exporting import c_program
from keras_lenet.pictures import load_picture, prepare_character
from keras_lenet.saving import load_model
from keras_lenet.training import RECIPES
from tests.helpers import BACKEND, needs_tensorflow, once, run_python

TOGETHER = "--coordinator host:1 --num-processes 2"


def keras_lenet(*arguments, cwd=None, **environment):
    """Runs the command line as a person would."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "keras_lenet", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """Returns the folder of a `model.keras` trained on digits."""
    (x_train, y_train), _ = digits
    folder = tmp_path_factory.mktemp("trained")
    keras.utils.set_random_seed(1)
    model = LeNet5(classifier_activation=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(x_train, y_train, epochs=8, batch_size=50, verbose=0)
    model.save(folder / "model.keras")
    return folder


@pytest.fixture
def npz(tmp_path, generator):
    """Returns the path of a small data set of 20x20 colour images."""
    images = generator.integers(0, 256, (30, 20, 20, 3)).astype("uint8")
    labels = np.arange(30) % 3
    path = tmp_path / "small.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


@needs_tensorflow
def test_train_writes_its_files_and_prints_evaluations_and_accuracy(
    tmp_path, npz, capsys
):
    output = tmp_path / "a folder" / "{new}"
    code = main(
        [
            *("train", "--dataset", str(npz), "--output", str(output)),
            *("--steps", "7", "--batch-size", "10"),
            *("--eval-every", "3", "--eval-size", "20"),
        ]
    )
    assert code == 0
    printed = capsys.readouterr().out
    with (output / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "7"]
    for row in rows:
        assert f"step {row['step']}: loss {float(row['loss']):.4f}," in printed
    # Without a terminal there is no progress bar.
    assert "\r" not in printed and "/7 " not in printed
    assert max(map(len, printed.partition("wrote ")[0].splitlines())) <= 80
    assert "c3 (Conv2D)" in printed
    assert "replacing" not in printed
    model = keras.saving.load_model(output / "model.keras")
    (x_test, y_test) = (np.load(npz)[name] for name in ("x_test", "y_test"))
    predicted = model.predict(x_test, verbose=0).argmax(axis=1)
    accuracy = np.mean(predicted == y_test)
    assert f"accuracy on all 30 test images: {accuracy:.2%}" in printed
    names = (
        "history.csv learning_curves.png model.keras predictions.png "
        "training.npz"
    )
    assert sorted(p.name for p in output.iterdir()) == names.split()
    for name in names.split():
        assert f"wrote {output / name}" in printed
    train(npz, steps=1, batch_size=10, output=output)
    assert f"replacing the finished run in {output}" in capsys.readouterr().out


@once
@needs_tensorflow
def test_train_draws_a_progress_bar_that_fits_a_terminal(
    tmp_path, npz, capsys, monkeypatch
):
    def has_terminal():
        return True

    monkeypatch.setattr(sys.stdout, "isatty", has_terminal)
    arguments = ["--steps", "6", "--batch-size", "10", "--eval-every", "3"]
    data = ["--dataset", str(npz), "--output", str(tmp_path / "a")]
    assert main(["train", *data, *arguments]) == 0
    printed = capsys.readouterr().out
    bars = re.findall(r"\r(\x1b\[1m\d/6.*?)(?:[\b\n]|$)", printed)
    assert len(bars) >= 2
    assert bars[-1].startswith("\x1b[1m6/6\x1b[0m ")
    for bar in bars:
        plain = re.sub(r"\x1b\[\d*m", "", bar)
        assert re.fullmatch(r"\d/6 ━{20} \S+ \S+/step *", plain), plain
    assert printed.count("\x1b[Lstep ") == 2


@once
@needs_tensorflow
def test_train_compiles_with_the_fast_recipe(tmp_path, npz):
    code = main(
        [
            *("train", "--dataset", str(npz), "--output", str(tmp_path)),
            *("--recipe", "fast", "--steps", "4", "--batch-size", "10"),
        ]
    )
    assert code == 0
    model = keras.saving.load_model(tmp_path / "model.keras")
    expected = recipes.fast(steps=4)
    configs = [o.get_config() for o in (model.optimizer, expected["optimizer"])]
    # Keras counts up the names.
    assert configs[0] | {"name": None} == configs[1] | {"name": None}
    assert model.loss.get_config() == expected["loss"].get_config()


@once
@needs_tensorflow
def test_train_evaluates_at_the_end_if_no_evaluation_was_due(
    tmp_path, npz, capsys
):
    arguments = [
        "train",
        "--dataset",
        str(npz),
        "--output",
        str(tmp_path / "a"),
    ]
    arguments += ["--steps", "2", "--batch-size", "10"]
    assert main(arguments) == 0
    lines = (tmp_path / "a" / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2"]


@once
@needs_tensorflow
def test_train_repeats_a_run_with_the_same_seed_only(tmp_path, npz, capsys):
    def history(seed, folder):
        arguments = ["train", "--dataset", str(npz), "--steps", "4"]
        arguments += ["--batch-size", "10", "--eval-every", "1"]
        output = tmp_path / folder
        assert main([*arguments, "--seed", seed, "--output", str(output)]) == 0
        return (output / "history.csv").read_text()

    assert history("1", "a") == history("1", "b") != history("2", "c")


def test_evaluate_prints_the_accuracy_and_loss(trained, digits, capsys):
    _, (x_test, y_test) = digits
    assert main(["evaluate", str(trained / "model.keras")]) == 0
    model = keras.saving.load_model(trained / "model.keras")
    predicted = model.predict(x_test, verbose=0).argmax(axis=1)
    accuracy = np.mean(predicted == y_test)
    assert accuracy > 0.9
    assert f"360 test images: {accuracy:.2%}, loss:" in capsys.readouterr().out


@once
def test_evaluate_prepares_images_for_a_model_without_preprocessing(
    tmp_path, trained, capsys
):
    model = keras.saving.load_model(trained / "model.keras")
    without = LeNet5(include_preprocessing=False, classifier_activation=None)
    without.set_weights(model.get_weights())
    without.save(tmp_path / "model.keras")
    lines = []
    for folder in (tmp_path, trained):
        assert main(["evaluate", str(folder / "model.keras")]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]


@pytest.fixture
def photographs(digits, tmp_path):
    """Returns paths and labels of twelve large, off-centre, dark digits."""
    _, (x_test, y_test) = digits
    paths = []
    for index in range(12):
        image = np.kron(x_test[index, ..., 0], np.ones((7, 7)))
        image = np.pad(image, ((25, 90), (60, 20))) / 255
        paths.append(str(tmp_path / f"{index}.{'png' if index % 2 else 'jpg'}"))
        imsave(paths[-1], np.stack([1 - image, 1 - image * 0.9, 1 - image], -1))
    return paths, y_test[:12]


def test_predict_reads_digits_in_pictures(trained, photographs, capsys):
    paths, expected = photographs
    for model in ("digits", str(trained / "model.keras")):
        assert main(["predict", model, *paths]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(": ")[0] for line in lines] == paths
        answers = [int(line.split(": ")[1].split()[0]) for line in lines]
        assert np.mean(np.equal(answers, expected)) > 0.8


@once
def test_predict_uses_the_handwritten_preset_by_default(photographs, capsys):
    paths, _ = photographs
    answers = []
    for model in ([], ["handwritten"]):
        assert main(["predict", *model, *paths[:2]]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


@once
def test_predict_prints_json_with_the_runners_up(photographs, capsys):
    paths, _ = photographs
    blank = paths[0].replace("0.jpg", "blank.png")
    imsave(blank, np.ones((50, 70, 3)))
    images = [prepare_character(load_picture(path)) for path in paths]
    outputs = LeNet5.from_preset("digits").predict(np.stack(images), verbose=0)
    best = outputs.max(axis=1)
    below = np.sort(best)[5:7].mean()
    arguments = ["digits", *paths, blank, "--top", "3", "--reject", str(below)]
    assert main(["predict", *arguments, "--json"]) == 0
    *found, without = json.loads(capsys.readouterr().out)
    assert main(["predict", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert without == {
        "picture": blank,
        "ink": False,
        "several": False,
        "accepted": False,
        "rejected": False,
        "class": None,
        "name": None,
        "probability": None,
        "top": [],
    }
    assert lines.pop() == f"{blank}: no ink"
    for path, output, one, line in zip(
        paths, outputs, found, lines, strict=True
    ):
        order = output.argsort()[::-1][:3]
        assert [place["class"] for place in one["top"]] == order.tolist()
        np.testing.assert_allclose(
            [place["probability"] for place in one["top"]],
            output[order],
            atol=1e-5,
        )
        assert (one["picture"], one["class"]) == (path, order[0])
        assert one["name"] == str(order[0])
        assert one["rejected"] == (output.max() < below)
        rejected = "rejected, " if one["rejected"] else ""
        assert line.startswith(f"{path}: {rejected}{order[0]} (")
        assert line.count("%") == 3


@pytest.fixture(scope="module")
def strange_pictures(tmp_path_factory, digits):
    """Returns paths of a row of digits, and of a letter."""
    folder = tmp_path_factory.mktemp("strange")
    _, (images, labels) = digits
    row = np.concatenate([255 - image[..., 0] for image in images[:4]], axis=1)
    imsave(folder / "row.png", np.pad(row, 9, constant_values=255), cmap="gray")
    letter = Image.new("L", (120, 120), 255)
    pen = ImageDraw.Draw(letter)
    for line in ((30, 20, 90, 100), (90, 20, 30, 100)):
        pen.line(line, 0, 7)
    letter.save(folder / "letter.png")
    text = "".join(map(str, labels[:4]))
    return str(folder / "row.png"), str(folder / "letter.png"), text


@once
def test_predict_says_what_is_not_one_digit(strange_pictures, capsys):
    row, letter, _ = strange_pictures
    assert main(["predict", row, letter]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{row}: several digits, see `keras-lenet read`"
    assert second.startswith(f"{letter}: not a digit, most like ")
    assert main(["predict", "--json", row, letter]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["several"], second["several"]) == (True, False)
    assert not second["accepted"]
    assert main(["predict", "--accept-all", letter]) == 0
    assert "not a digit" not in capsys.readouterr().out


@once
def test_read_prints_the_digits_of_a_row(strange_pictures, tmp_path, capsys):
    row, letter, text = strange_pictures
    arguments = ["read", row, letter]
    assert main([*arguments, "--plot", "--output", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{row}: {text} (")
    assert second.startswith(f"{letter}: ?")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    assert main([*arguments, "--json"]) == 0
    found, _ = json.loads(capsys.readouterr().out)
    assert (found["picture"], found["text"]) == (row, text)
    assert [str(digit["class"]) for digit in found["digits"]] == list(text)
    assert found["probability"] == pytest.approx(
        np.prod([digit["probability"] for digit in found["digits"]])
    )
    lefts = [digit["box"][1] for digit in found["digits"]]
    assert lefts == sorted(lefts)


@once
def test_read_needs_a_model_of_grey_digits(strange_pictures, tmp_path, capsys):
    path = tmp_path / "letters.keras"
    LeNet5(num_classes=26).save(path)
    assert main(["read", str(path), strange_pictures[0]]) == 2
    assert "for 26 classes" in capsys.readouterr().err


@once
def test_predict_draws_what_the_model_saw(photographs, tmp_path, capsys):
    paths, _ = photographs
    output = tmp_path / "plots"
    assert main(["predict", *paths[:3], "--plot", "--output", str(output)]) == 0
    assert [path.name for path in output.iterdir()] == ["pictures.png"]
    # stdout has nothing but the answers, so it can be piped.
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err == f"wrote {output / 'pictures.png'}\n"


@once
def test_predict_leaves_an_image_in_mnist_form_unchanged(
    trained, digits, tmp_path, capsys
):
    _, (x_test, _) = digits
    path = tmp_path / "digit.png"
    imsave(path, x_test[0, ..., 0], cmap="gray", vmin=0, vmax=255)
    assert main(["predict", str(trained / "model.keras"), str(path)]) == 0
    model = keras.saving.load_model(trained / "model.keras")
    logits = model.predict(x_test[:1], verbose=0)[0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    best = probabilities.argmax()
    name, answer = capsys.readouterr().out.split(": ")
    predicted, percentage = re.fullmatch(r"(\d) \((.*)%\)\n", answer).groups()
    assert (name, predicted) == (str(path), str(best))
    assert float(percentage) == pytest.approx(
        100 * probabilities[best], abs=0.1
    )


@once
def test_predict_reads_colour_pictures(tmp_path, generator, capsys):
    model = LeNet5(num_classes=4, input_shape=(20, 20, 3))
    model.save(tmp_path / "model.keras")
    image = generator.integers(0, 256, (20, 20, 3)).astype("uint8")
    imsave(tmp_path / "colour.png", image)
    arguments = [str(tmp_path / "model.keras"), str(tmp_path / "colour.png")]
    assert main(["predict", *arguments]) == 0
    best = model.predict(image[np.newaxis], verbose=0).argmax()
    assert f"colour.png: {best} (" in capsys.readouterr().out


@once
@needs_tensorflow
def test_predict_prints_the_names_of_the_classes_trained_on(
    tmp_path, generator, capsys
):
    for name in ("ant", "bee"):
        (tmp_path / "insects" / name).mkdir(parents=True)
        for index in range(8):
            image = generator.integers(0, 99, (20, 20)).astype("uint8")
            imsave(tmp_path / "insects" / name / f"{index}.png", image)
    output = tmp_path / "run"
    result = train(
        tmp_path / "insects", steps=1, batch_size=4, output=output, verbose=0
    )
    assert result.model.class_names == ["ant", "bee"]
    model = str(output / "model.keras")
    picture = str(tmp_path / "insects" / "ant" / "0.png")
    assert main(["predict", model, picture, "--top", "2"]) == 0
    line = capsys.readouterr().out
    assert "ant (" in line and "bee (" in line
    assert main(["predict", model, picture, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == ["ant", "bee"][found["class"]]


@once
def test_evaluate_draws_and_rejects(tmp_path, digits, capsys):
    _, (x_test, y_test) = digits
    output = tmp_path / "plots"
    arguments = ["evaluate", "mnist", "--plot", "--output", str(output)]
    assert main([*arguments, "--reject", "0.9"]) == 0
    probabilities = LeNet5.from_preset("mnist").predict(x_test, verbose=0)
    kept = probabilities.max(axis=1) >= 0.9
    right = probabilities.argmax(axis=1) == y_test
    assert (
        f"rejected below 0.9: {1 - kept.mean():.2%}, accuracy on the others: "
        f"{right[kept].mean():.2%}\n"
    ) in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {
        "confusion_matrix.png",
        "errors.png",
        "rejection.png",
    }


@once
@needs_tensorflow
def test_train_starts_from_a_preset(tmp_path, digits, capsys):
    output = tmp_path / "run"
    arguments = ["train", "--steps", "1", "--output", str(output)]
    assert main([*arguments, "--start-from", "digits"]) == 0
    _, (x_test, y_test) = digits
    before = LeNet5.from_preset("digits")
    before.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = before.evaluate(x_test, y_test, verbose=0)[1]
    accuracy = capsys.readouterr().out.split("test images: ")[1].split("%")[0]
    assert abs(float(accuracy) / 100 - expected) < 0.1


@once
@needs_tensorflow
def test_start_from_keeps_all_but_the_last_layer_for_other_classes(
    tmp_path, generator, capsys
):
    images = generator.integers(0, 256, (40, 20, 20)).astype("uint8")
    labels = generator.integers(0, 3, 40)
    np.savez(
        tmp_path / "three.npz",
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
    )
    arguments = ["--steps", "1", "--batch-size", "10", "--start-from", "mnist"]
    data = ["--dataset", str(tmp_path / "three.npz")]
    output = ["--output", str(tmp_path / "run")]
    assert main(["train", *arguments, *data, *output]) == 0
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.output_shape == (None, max(labels) + 1)
    # One step of Adam moves a weight by at most its learning rate.
    before = LeNet5.from_preset("mnist")
    for name in ("c1", "c3", "c5", "f6"):
        for weight, same in zip(
            model.get_layer(name).get_weights(),
            before.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_allclose(weight, same, atol=1.1e-3)


@once
@needs_tensorflow
def test_the_accurate_recipe_distorts_images_and_sets_batches_and_epochs(
    tmp_path, monkeypatch, capsys
):
    calls = []
    distort = RandomDistortion.__call__

    def counted(self, images, generator):
        calls.append(len(images))
        return distort(self, images, generator)

    monkeypatch.setattr(RandomDistortion, "__call__", counted)
    short = dataclasses.replace(RECIPES["accurate"], epochs=2)
    monkeypatch.setitem(RECIPES, "accurate", short)
    output = ["--output", str(tmp_path), "--eval-size", "10"]
    assert main(["train", "--recipe", "accurate", *output]) == 0
    # 1,437 images have 5 batches of 250.
    assert set(calls) == {250} and len(calls) >= 10
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in history] == ["step", "5", "10"]


@once
@needs_tensorflow
def test_the_original_model_trains_with_the_papers_recipe(
    tmp_path, photographs, capsys
):
    output = ["--output", str(tmp_path), "--eval-size", "10"]
    short = ["--steps", "60", "--batch-size", "20"]
    assert main(["train", "--model", "original", *short, *output]) == 0
    model = load_model(tmp_path / "model.keras")
    assert type(model) is OriginalLeNet5
    history = (tmp_path / "history.csv").read_text().splitlines()
    # The recipe evaluates after each epoch and at the end: here, once.
    assert [line.split(",")[0] for line in history] == ["step", "60"]
    path = str(tmp_path / "model.keras")
    assert main(["evaluate", path]) == 0
    assert main(["predict", path, photographs[0][0]]) == 0
    assert "%)" in capsys.readouterr().out
    assert main(["train", "--model", "original", "--recipe", "fast"]) == 2
    assert "must be one for the model 'original'" in capsys.readouterr().err
    assert main(["train", "--start-from", path, *output, "--resume"]) == 2
    assert "`--start-from` must be a LeNet5." in capsys.readouterr().err


def make_bad_files(folder):
    (folder / "text.keras").write_text("not a model")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Other"}))
    with zipfile.ZipFile(folder / "damaged.keras", "w") as archive:
        config = {"registered_name": "keras_lenet>LeNet5"}
        archive.writestr("config.json", json.dumps(config))
    (folder / "text.png").write_text("not a picture")
    imsave(folder / "blank.png", np.ones((50, 50, 3)))
    (folder / "folder").mkdir()
    images, labels = np.zeros((6, 33, 20, 1), "uint8"), np.arange(6)
    np.savez(
        folder / "large.npz",
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
    )


@once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("evaluate gone.keras", "gone.keras: no such file"),
        ("evaluate folder", "folder"),
        ("evaluate text.keras", "expected a `.keras` file. Received: text"),
        ("evaluate zip.keras", "zip.keras: expected the entries"),
        ("evaluate damaged.keras", "damaged.keras: expected the entries"),
        ("evaluate MODEL --dataset gone", "and no such path exists"),
        ("evaluate MODEL --plot --output text.png", "`--output` must be a fol"),
        ("evaluate MODEL --dataset small.npz", "20x20 pixels and 3 channel"),
        ("predict MODEL gone.png", "gone.png: no such file"),
        ("predict MODEL folder", "folder: no such file"),
        ("predict blank.png --plot --output text.png", "`--output` must be a"),
        ("predict MODEL text.png", "text.png"),
        ("predict MODEL", "Received: only the model"),
        ("predict folder blank.png", "folder: expected the file metadata.json"),
        ("train --start-from gone", "none of the presets digits, handwritten"),
        ("train --coordinator h:1", "Received: no --num-processes, no --pro"),
        ("train --process-id 0 --num-processes 2", "no --coordinator."),
        (f"train {TOGETHER} --process-id 2", "Received: 2 of 2."),
        ("train --output text.png", "`--output` must be a folder"),
        ("train --output text.png/new", "`--output` must be a folder"),
        ("train --dataset gone", "gone: expected one of digits, mnist"),
        ("train --dataset small.npz", "training images, 30. Received: --batch"),
        ("train --dataset large.npz", "at most 32x32 pixels. Received: large"),
        (
            "train --dataset small.npz --batch-size 9 --start-from mnist",
            "as those of `--dataset`, 3. Received: mnist, for 1.",
        ),
        ("train --start-from original", "Received: original, of class Origin"),
        ("train --dataset folder", "folder: expected a folder with MNIST's"),
    ],
)
def test_unusable_input_prints_one_line_and_exits_with_2(
    arguments, message, trained, tmp_path, npz, capsys, monkeypatch
):
    make_bad_files(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    arguments = arguments.replace("MODEL", str(trained / "model.keras"))
    output = [] if "--output" in arguments else ["--output", "new"]
    if not arguments.startswith("train"):
        output = []
    assert main([*arguments.split(), *output]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-lenet: error: ")
    assert message in error
    assert error.count("\n") == 1
    after = sorted(path.name for path in tmp_path.iterdir())
    assert after == before


@once
@needs_tensorflow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("--steps 5", "`--steps`"),
        ("--batch-size 9", "`--batch-size`"),
        ("--seed 1", "`--seed`"),
        ("--eval-every 2", "`--eval-every`"),
        ("--recipe fast", "`--recipe`"),
        ("--dataset digits", "`--dataset` or `--model`"),
        ("--model original", "`--recipe`"),
    ],
)
def test_resume_names_the_option_that_differs_from_the_saved_run(
    change, named, tmp_path, npz, capsys
):
    output = tmp_path / "run"
    arguments = ["train", "--dataset", str(npz), "--output", str(output)]
    arguments += ["--steps", "2", "--batch-size", "10", "--resume"]
    assert main(arguments) == 0
    before = (output / "training.npz").read_bytes()
    capsys.readouterr()
    assert main([*arguments, *change.split()]) == 2
    error = capsys.readouterr().err
    received = error.split("Received: ")[1]
    assert f"that of a run with another {named}" in received.replace(
        "`--dataset` or `--model`, `--recipe`", "`--recipe`"
    )
    assert "give another `--output`, or delete the file" in received
    assert "filepath" not in error and error.count("\n") == 1
    assert (output / "training.npz").read_bytes() == before


@once
@pytest.mark.starts_first
@needs_tensorflow
def test_train_drops_the_start_up_lines_of_tensorflow(tmp_path, npz):
    environment = os.environ.copy()
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "keras_lenet", "train", "--steps", "1"),
            *("--dataset", str(npz), "--batch-size", "10"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@once
def test_other_lines_on_stderr_arrive_even_after_a_crash():
    dropped = [
        "WARNING: All log messages before absl::InitializeLog() is called",
        "I0000 00:00:17.25 1 cudart_stub.cc:31] Could not find cuda drivers",
        "E0000 00:00:17.25 1 cuda.cc:52] failed call to cuInit: ERROR (303)",
    ]
    others = [
        "E0000 00:00:17.25 1 cuda.cc:52] failed call to cuInit: ERROR (999)",
        "F0000 00:00:17.25 1 cpu_feature_guard.cc:9] compiled to use AVX",
        "Traceback (most recent call last):",
        "the end",
    ]
    code = (
        "import os, sys; from keras_lenet.cli import terminal\n"
        "with terminal._without_start_up_lines():\n"
        "    os.write(2, sys.argv[1].encode())\n"
        "    if sys.argv[2] == 'raise': raise KeyError('an error')\n"
        "    if sys.argv[2] == 'abort': os.abort()\n"
        "os.write(2, b' after')"
    )
    expected = "\n".join(others)
    for end, after in (("", " after"), ("raise", "Traceback"), ("abort", "")):
        done = subprocess.run(
            [sys.executable, "-c", code, "\n".join(dropped + others), end],
            capture_output=True,
            text=True,
        )
        assert done.stderr.startswith(expected + after), (end, done.stderr)
        assert done.stdout == ""


@once
@pytest.mark.parametrize("command", ["", "train", "evaluate", "predict"])
def test_help_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80


@pytest.mark.skipif(BACKEND == "jax", reason="about the other backends")
def test_several_processes_require_jax(capsys):
    assert main(f"train {TOGETHER} --process-id 0".split()) == 2
    assert f"Received: the backend {BACKEND}." in capsys.readouterr().err


@once
def test_the_batch_size_must_be_a_multiple_of_the_devices(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_lenet.distribution.device_count", lambda: 3)
    assert main(["train", "--batch-size", "100"]) == 2
    assert "must be a multiple of 3, the" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["paint"], "invalid choice: 'paint'"),
        (["train", "--steps", "0"], "--steps: expected an integer from 1 to"),
        (["train", "--seed", str(2**32)], "from 0 to 4294967295. Received: '4"),
        (["train", "--steps", "x"], "Received: 'x'"),
        (["train", "--seed", "-1"], "--seed"),
        (["train", "--backend", "numpy"], "invalid choice: 'numpy'"),
        (["predict"], "required: [MODEL] PICTURE"),
        (["predict", "a.png", "--reject", "2"], "expected a number from 0 to"),
        (["predict", "a.png", "--top", "0"], "expected an integer from 1 to"),
    ],
)
def test_wrong_options_print_one_line_and_exit_with_2(
    arguments, message, capsys
):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@once
def test_ctrl_c_prints_no_traceback(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_lenet.saving.load", interrupt)
    assert main(["evaluate", "model.keras"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_and_version_need_no_keras():
    code = (
        "import sys, keras_lenet.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: print('keras' in sys.modules)"
    )
    for flag, expected in (("--help", "predict"), ("--version", __version__)):
        output = run_python(code, flag)
        assert expected in output and output.endswith("False\n")


@once
def test_backend_selects_the_keras_backend(trained, tmp_path):
    other = "torch" if BACKEND != "torch" else "jax"
    pytest.importorskip(other)
    code = (
        "import sys, keras_lenet.cli as cli; cli.main(sys.argv[1:]); "
        "import keras; print(keras.backend.backend())"
    )
    arguments = ["evaluate", str(trained / "model.keras"), "--backend", other]
    output = run_python(code, *arguments)
    assert output.splitlines()[-1] == other


@once
def test_python_m_keras_lenet_runs_the_command_line(trained):
    done = keras_lenet("evaluate", str(trained / "gone.keras"))
    assert done.returncode == 2
    assert "gone.keras: no such file" in done.stderr


@once
@pytest.mark.skipif(c_program.compiler() is None, reason="needs a C compiler")
def test_export_compares_with_keras(tmp_path, capsys):
    folder = tmp_path / "program"
    arguments = f"export mnist --format c --output {folder}"
    assert main(arguments.split()) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {folder} (")
    difference = re.search(r"differ from Keras' by at most (\S+);", printed)
    assert float(difference[1]) < 1e-5
    accuracies = re.search(r"accuracy (\S+)%, with Keras (\S+)%", printed)
    assert accuracies[1] == accuracies[2]
    assert "preset: mnist" in (folder / "lenet5.c").read_text()
    assert "not trained on" not in printed


@once
@pytest.mark.skipif(c_program.compiler() is None, reason="needs a C compiler")
def test_export_doubts_an_accuracy_on_other_data(tmp_path, capsys):
    path = tmp_path / "mine.keras"
    LeNet5(num_classes=3).save(path)
    folder = tmp_path / "program"
    assert (
        main(["export", str(path), "--format", "c", f"--output={folder}"]) == 0
    )
    printed = capsys.readouterr().out
    assert "was probably not trained on digits: give its own data" in printed


@once
def test_export_says_what_is_wrong(tmp_path, capsys):
    arguments = "export mnist --format saved_model --int8 --output"
    assert main([*arguments.split(), str(tmp_path / "folder")]) == 2
    error = capsys.readouterr().err
    assert "`--int8` needs one of the formats onnx, litert, c" in error


@once
def test_demo_opens_a_page(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or 1)
    assert main(["demo", "original"]) == 0
    path = Path(capsys.readouterr().out.removeprefix("wrote ").strip())
    assert opened == [path.as_uri()]
    assert "<title>OriginalLeNet5 original</title>" in path.read_text()
    path.unlink()
    path.parent.rmdir()
