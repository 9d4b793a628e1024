"""`keras-lenet train`."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from keras_lenet.cli import options
from keras_lenet.cli.terminal import silence_tfds
from keras_lenet.training import (
    MODEL_NAMES,
    RECIPES,
    TRACKER_PACKAGES,
    Recipe,
    train,
)


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "train",
        parents=[options.common(), options.data()],
        help="train, and write model, history and plots",
        description="Train LeNet-5 with a recipe, and write the model, its "
        "history and plots. The default recipe, cookbook, trains 300 steps of "
        "100 images and evaluates on 500 test images every 5 steps.",
    )
    for flag, text, default in (
        (
            "--steps",
            "number of training steps",
            lambda recipe: recipe.steps or f"{recipe.epochs} epochs",
        ),
        (
            "--batch-size",
            "number of images per step",
            lambda recipe: recipe.batch_size,
        ),
        (
            "--eval-every",
            "number of steps between evaluations",
            lambda recipe: recipe.eval_every or "an epoch",
        ),
    ):
        parser.add_argument(
            flag,
            type=options.positive_integer,
            metavar="N",
            help=f"{text} ({_defaults(default)})",
        )
    parser.add_argument(
        "--eval-size",
        type=options.positive_integer,
        default=500,
        metavar="N",
        help="number of test images per evaluation (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="; ".join(
            f"{name}: {recipe.description}" for name, recipe in RECIPES.items()
        )
        + f" (default: {_default_recipes()})",
    )
    parser.add_argument(
        "--model",
        choices=MODEL_NAMES,
        help="lenet5: LeNet-5 as it is used today; original: as in the 1998 "
        "paper (default: the model of the recipe)",
    )
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="start from a trained LeNet5: the name or folder of a preset, or "
        "a .keras file; if the number of classes differs, its output layer is "
        "initialized again",
    )
    parser.add_argument(
        "--seed",
        type=options.natural_number,
        default=98,
        metavar="N",
        help="seed of weights, order and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        default="lenet5-run",
        metavar="DIR",
        help="folder to write to (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the interrupted run in --output, if there is one; all "
        "other options must be the same",
    )
    parser.add_argument(
        "--log",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAMES",
        help="log every evaluation and the pictures to trackers, separated by "
        f"commas: {', '.join(TRACKER_PACKAGES)}; csv and tensorboard write "
        "into --output",
    )
    _add_processes(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Trains with a recipe, and writes model, history and plots."""
    _join_processes(arguments)
    silence_tfds()
    given = vars(arguments)
    names = given.keys() & inspect.signature(train).parameters.keys()
    result = train(**{name: given[name] for name in names})
    for path in result.files:
        print(f"wrote {path}")


def _default_recipes() -> str:
    first = {r.model: name for name, r in reversed(RECIPES.items())}
    return ", ".join(f"{first[model]} for {model}" for model in MODEL_NAMES)


def _defaults(default: Callable[[Recipe], Any]) -> str:
    """Describes the default of each recipe, grouped by value."""
    names: dict[Any, list[str]] = {}
    for name, recipe in RECIPES.items():
        names.setdefault(default(recipe), []).append(name)
    return "defaults: " + "; ".join(
        f"{value} for {' and '.join(group)}" for value, group in names.items()
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "Start the same command on every machine, with --backend jax.",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address at which process 0 listens",
    )
    group.add_argument(
        "--num-processes",
        type=options.positive_integer,
        metavar="N",
        help="number of processes",
    )
    group.add_argument(
        "--process-id",
        type=options.natural_number,
        metavar="I",
        help="index of this process, from 0; process 0 writes and prints",
    )


def _join_processes(arguments: argparse.Namespace) -> None:
    """Connects the processes that train together, if there are several."""
    given = {
        "--coordinator": arguments.coordinator,
        "--num-processes": arguments.num_processes,
        "--process-id": arguments.process_id,
    }
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing:
        raise ValueError(
            f"{', '.join(given)} must be given together. "
            f"Received: no {', no '.join(missing)}."
        )
    if arguments.process_id >= arguments.num_processes:
        raise ValueError(
            "`--process-id` must be below --num-processes. Received: "
            f"{arguments.process_id} of {arguments.num_processes}."
        )
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(
            "`--coordinator` needs --backend jax. "
            f"Received: the backend {keras.backend.backend()}."
        )
    import jax

    # Gloo lets processes on CPUs communicate.
    name = "jax_cpu_collectives_implementation"
    jax.config.update(name, "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(
        arguments.coordinator, arguments.num_processes, arguments.process_id
    )
    keras.distribution.set_distribution(keras.distribution.DataParallel())
