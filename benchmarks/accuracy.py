r"""Measures the accuracy of LeNet-5 on MNIST, by network and recipe.

Trains on all 60,000 images once per seed, with a fixed number of epochs. The
result is the accuracy on the 10,000 test images after the last epoch, without
ensembles or test-time augmentation. The recipes were tuned on 5,000 held-out
training images, without the test images.

    KERAS_BACKEND=jax python benchmarks/accuracy.py --data DIR --seeds 1 2 3

`--recipe distilled` first trains the teacher (`teacher.py`) on the same images.
It takes minutes on a GPU and hours without. Let one process train it, with
`--seeds` and no number, before several share it. `--teacher mnist` lets a
preset teach instead, which a CPU can do.

Each finished seed is a line of the log, `accuracy.jsonl` beside this script,
and is not trained again. Its model is in the folder `--state`. The same command
resumes an interrupted run. Several processes with different seeds can share a
log. `--write` draws the curves and puts the table into `README.md` here.
`--ensemble` prints the accuracy of the mean of the seeds' outputs.

`--images` trains on a part of the images, and evaluates the others instead of
the test images. `--preset` then trains the models of these seeds for eight more
epochs, in which half of the images are on brighter ground, and writes the best
one as a preset of the package: the one with the fewest errors on the other
images or, if several have as few, the lowest crossentropy. These images also
calibrate its probabilities. The test images give the card's figures alone.

    python benchmarks/accuracy.py --data DIR --recipe distilled \
        --images 55000 --seeds 11 12 13 14 15 16 \
        --preset keras_lenet/pretrained/mnist
"""

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from options import add_data
from reports import replace_lines

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs/pages/images/accuracy.png"
ALL_IMAGES = 60_000
BATCH_SIZE = 250
GROUND_EPOCHS = 8
# Differ in grey too (https://jfly.uni-koeln.de/color).
COLORS = ("#D55E00", "#0072B2", "#000000", "#56B4E9")


def main() -> None:
    arguments = parse_arguments()
    settings = {
        "network": arguments.network,
        "recipe": arguments.recipe,
        "epochs": arguments.epochs,
        "images": arguments.images,
        "teacher": arguments.teacher,
    }
    if arguments.recipe == "distilled" and not arguments.seeds:
        teacher(arguments, *load(arguments)[0])
    for seed in arguments.seeds:
        if all(record["seed"] != seed for record in read(arguments, settings)):
            record = settings | train(arguments, seed)
            with arguments.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    for record in read(arguments, settings):
        print(f"seed {record['seed']}: {record['accuracy']:.2%}")
    if arguments.preset:
        save_preset(arguments)
    if arguments.ensemble:
        print(f"together: {ensemble_accuracy(arguments):.2%}")
    if arguments.write:
        write(read(arguments, {"images": arguments.images}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the accuracy of LeNet-5 on MNIST's test images."
    )
    parser.add_argument(
        "--network",
        choices=["LeNet5", "OriginalLeNet5"],
        default="LeNet5",
        help="class of keras_lenet (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        choices=["accurate", "distilled"],
        default="accurate",
        help="recipe of keras_lenet.recipes (default: %(default)s)",
    )
    parser.add_argument(
        "--teacher",
        metavar="PRESET",
        help="preset of LeNet5 that teaches (default: the network in "
        "teacher.py)",
    )
    add_data(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="*",
        default=list(range(1, 11)),
        metavar="N",
        help="seeds to train unless the log has them (default: 1 to 10)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=90,
        metavar="N",
        help="number of epochs (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=ALL_IMAGES,
        metavar="N",
        help="number of training images (default: %(default)s)",
    )
    parser.add_argument(
        "--log",
        type=Path,
        default=HERE / "accuracy.jsonl",
        metavar="FILE",
        help="file of the results (default: accuracy.jsonl, here)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("accuracy-run"),
        metavar="DIR",
        help="folder for the teacher and interrupted runs (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put table and curves into README.md, here",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="evaluate the average of the models of all seeds",
    )
    parser.add_argument(
        "--preset",
        type=Path,
        metavar="DIR",
        help="write the best model of the seeds to this folder, by the images "
        "that --images leaves out",
    )
    arguments = parser.parse_args()
    if arguments.teacher and arguments.recipe != "distilled":
        parser.error("--teacher needs --recipe distilled.")
    if arguments.preset and arguments.images >= ALL_IMAGES:
        parser.error(
            f"--preset needs --images below {ALL_IMAGES:,}, as the others "
            f"choose the model. Received: {arguments.images:,}"
        )
    return arguments


def read(
    arguments: argparse.Namespace, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns the log's records with these settings, by seed."""
    if not arguments.log.exists():
        return []
    lines = arguments.log.read_text(encoding="utf-8").splitlines()
    records = [
        record
        for record in map(json.loads, lines)
        if settings.items() <= record.items()
    ]
    return sorted(
        records,
        key=lambda record: (
            record["network"],
            record["recipe"],
            record["teacher"] or "",
            record["seed"],
        ),
    )


def train(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Trains and saves a model, and returns its record for the log."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    from teacher import distorted_batches

    import keras_lenet
    from keras_lenet import (
        HeldOutEvaluation,
        ResumableTraining,
        recipes,
    )

    start = time.perf_counter()
    (x, y), others, _ = load(arguments)
    taught_by = None
    if arguments.recipe == "distilled":
        taught_by = teacher(arguments, x, y)
    keras.utils.set_random_seed(seed)
    batches = distorted_batches(x, y, BATCH_SIZE, seed)
    steps_in_epoch = len(x) // BATCH_SIZE
    steps = steps_in_epoch * arguments.epochs
    model = getattr(keras_lenet, arguments.network)()
    from_logits = model.classifier_activation is keras.activations.linear
    if taught_by is None:
        trained = model
        model.compile(**recipes.accurate(steps, from_logits))
    elif from_logits:
        # Distances are larger than logits usually are. These settings were the
        # best of eight, in short runs on held-out images.
        images = keras.Input(taught_by.input_shape[1:])
        logits = keras.ops.log(taught_by(images) + 1e-7)
        taught_by = keras.Model(images, logits)
        trained = recipes.distilled(taught_by, model, steps, 10.0, True)
        trained.optimizer.learning_rate = recipes.OneCycle(0.012, steps, 0.1)
    else:
        trained = recipes.distilled(taught_by, model, steps)
    # Evaluate ten times for the curve.
    every = max(1, arguments.epochs // 10) * steps_in_epoch
    held_out = HeldOutEvaluation(others, freq=every, at_end=True)
    arguments.state.mkdir(exist_ok=True)
    path = model_path(arguments, seed)
    resumable = ResumableTraining(path.with_suffix(".npz"))
    trained.fit(
        batches,
        epochs=arguments.epochs,
        callbacks=[held_out, resumable],
        shuffle=False,
        verbose=0,
    )
    model.save(path)
    print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    history = held_out.history
    return {
        "seed": seed,
        "accuracy": history["val_accuracy"][-1],
        "step": history["step"],
        "train_error": [1 - value for value in history["accuracy"]],
        "error": [1 - value for value in history["val_accuracy"]],
        "backend": keras.backend.backend(),
        "keras": keras.version(),
        "python": platform.python_version(),
    }


def model_path(arguments: argparse.Namespace, seed: int) -> Path:
    recipe = "-".join(filter(None, (arguments.recipe, arguments.teacher)))
    return arguments.state / (
        f"{arguments.network}-{recipe}-{arguments.images}-images-"
        f"{arguments.epochs}-epochs-seed-{seed}.keras"
    )


def trained_models(arguments: argparse.Namespace) -> list[Any]:
    import keras

    # Register the classes.
    import keras_lenet.models
    import keras_lenet.original  # noqa: F401

    return [
        keras.saving.load_model(model_path(arguments, seed), compile=False)
        for seed in arguments.seeds
    ]


def ensemble_accuracy(arguments: argparse.Namespace) -> float:
    """Returns the accuracy of the average of the seeds' models."""
    from keras_lenet.models import Ensemble

    _, (x, y), _ = load(arguments)
    model = Ensemble(trained_models(arguments))
    probabilities = model.predict(x, batch_size=500, verbose=0)
    return float((probabilities.argmax(axis=1) == y).mean())


def load(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Returns images and labels to train on, to evaluate, and to test.

    Those to evaluate are the test images unless training leaves some out.
    """
    from keras_lenet import datasets

    (x, y), test = datasets.load_data(arguments.data)
    used, others = slice(arguments.images), slice(arguments.images, None)
    left_out = x[others], y[others]
    return (x[used], y[used]), left_out if len(y[others]) else test, test


def teacher(arguments: argparse.Namespace, x: Any, y: Any) -> Any:
    """Returns the teacher, trained on training images only."""
    from teacher import load_or_train_teacher

    from keras_lenet import LeNet5

    if arguments.teacher:
        return LeNet5.from_preset(arguments.teacher)
    arguments.state.mkdir(exist_ok=True)
    path = arguments.state / f"teacher-{arguments.images}-images.keras"
    return load_or_train_teacher(path, x, y)


def train_on_brighter_ground(model: Any, x: Any, y: Any, seed: int) -> None:
    """Trains a model a little longer, so that it also reads grey paper."""
    import keras
    from backgrounds import RandomGround
    from teacher import distorted_batches

    from keras_lenet import recipes

    keras.utils.set_random_seed(seed)
    batches = distorted_batches(x, y, BATCH_SIZE, seed)
    steps = len(x) // BATCH_SIZE * GROUND_EPOCHS
    trained = keras.Sequential(
        [keras.Input(model.input_shape[1:]), RandomGround(seed=seed), model]
    )
    trained.compile(**recipes.accurate(steps))
    rate = recipes.OneCycle(0.004, steps, warmup=0.05)
    trained.optimizer.learning_rate = rate
    trained.fit(batches, epochs=GROUND_EPOCHS, shuffle=False, verbose=0)


def save_preset(arguments: argparse.Namespace) -> None:
    """Writes the model with the fewest errors on the images left out."""
    from keras_lenet import calibration

    def evaluate(model: Any) -> tuple[float, float]:
        model.compile(
            loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        loss, accuracy = model.evaluate(*others, batch_size=500, verbose=0)
        return 1 - accuracy, loss

    used, others, (x_test, y_test) = load(arguments)
    models = trained_models(arguments)
    for seed, model in zip(arguments.seeds, models, strict=True):
        train_on_brighter_ground(model, *used, seed)
    (error, _), seed, model = min(
        (evaluate(model), seed, model)
        for seed, model in zip(arguments.seeds, models, strict=True)
    )

    def predict() -> Any:
        return model.predict(x_test, batch_size=500, verbose=0)

    measure = calibration.expected_calibration_error
    before = measure(predict(), y_test)
    temperature = calibration.calibrate(model, *others)
    probabilities = predict()
    accuracy = float((probabilities.argmax(axis=1) == y_test).mean())
    # Add two right and two wrong predictions, so the standard error is not 0 if
    # all are right (Agresti and Coull, https://doi.org/10.2307/2685469).
    share = (accuracy * len(y_test) + 2) / (len(y_test) + 4)
    card = {
        "dataset": Path(arguments.data).name,
        "training_images": arguments.images,
        "recipe": f"recipes.{arguments.recipe} and RandomDistortion, "
        f"{arguments.epochs} epochs of batches of {BATCH_SIZE}; "
        f"{GROUND_EPOCHS} epochs on brighter ground",
        "seed": seed,
        "held_out_error": round(error, 5),
        "test_images": len(y_test),
        "test_accuracy": round(accuracy, 5),
        "test_accuracy_standard_error": round(
            math.sqrt(share * (1 - share) / len(y_test)), 5
        ),
        "calibration_images": len(others[1]),
        "temperature": round(temperature, 4),
        "test_calibration_error_before": round(before, 5),
        "test_calibration_error": round(measure(probabilities, y_test), 5),
        "license": "Apache-2.0",
    }
    model.save_to_preset(arguments.preset, card)
    print(json.dumps(card, indent=2))


def recipe_name(record: dict[str, Any]) -> str:
    if record["teacher"] is None:
        return str(record["recipe"])
    return f"{record['recipe']} from preset {record['teacher']}"


def write(records: list[dict[str, Any]]) -> None:
    """Draws the curves and puts the table between the marks in README.md."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from keras_lenet.files.atomic import atomic_write

    table = [
        "The log of seeds is `accuracy.jsonl`.",
        "",
        "| network | recipe | epochs | images | mean | standard deviation "
        "| standard error | worst | best | n |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    by_seed = []
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    groups = itertools.groupby(
        records, lambda record: (record["network"], recipe_name(record))
    )
    for ((network, recipe), group), color in zip(groups, COLORS, strict=False):
        runs = list(group)
        accuracies = [run["accuracy"] for run in runs]
        deviation = statistics.stdev(accuracies)
        table.append(
            f"| `{network}` | {recipe} | {runs[0]['epochs']} "
            f"| {runs[0]['images']:,} "
            f"| {statistics.mean(accuracies):.3%} | {100 * deviation:.3f} "
            f"| {100 * deviation / len(runs) ** 0.5:.3f} "
            f"| {min(accuracies):.2%} | {max(accuracies):.2%} | {len(runs)} |"
        )
        by_seed += ["", f"`{network}`, {recipe}, by seed: "]
        by_seed[-1] += ", ".join(
            f"{run['seed']}: {run['accuracy']:.2%}" for run in runs
        )
        for name, label, style in (
            ("train_error", f"{network}, {recipe}, training", "--"),
            ("error", f"{network}, {recipe}, test", "-"),
        ):
            for run in runs:
                steps = run["step"]
                axes.plot(
                    [step * run["epochs"] / steps[-1] for step in steps],
                    [100 * error for error in run[name]],
                    label=label if run is runs[0] else None,
                    color=color,
                    linestyle=style,
                    linewidth=0.9,
                )
    replace_lines(HERE / "README.md", "accuracy.py", table + by_seed)

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Error")
    axes.set_title("LeNet-5 on MNIST, a line for each seed")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_write(FIGURE) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()
