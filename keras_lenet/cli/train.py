"""`keras-lenet train`."""

import argparse
import logging
from typing import Any

from keras_lenet.cli import options
from keras_lenet.training import MODEL_NAMES, RECIPES, Recipe, train


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "train",
        parents=[options.common(), options.data()],
        help="train, and write model, history and plots",
        description="Train LeNet-5. The defaults are the cookbook's: 300 steps "
        "of 100 images, an evaluation on 500 held-out images every 5 steps.",
    )
    for flag, text in (
        ("--steps", f"number of training steps ({_defaults(_steps)})"),
        (
            "--batch-size",
            f"number of images per step ({_defaults(_batch_size)})",
        ),
        (
            "--eval-every",
            f"number of steps between evaluations ({_defaults(_eval_every)})",
        ),
    ):
        parser.add_argument(
            flag, type=options.positive_integer, metavar="N", help=text
        )
    parser.add_argument(
        "--eval-size",
        type=options.positive_integer,
        default=500,
        metavar="N",
        help="number of test images that an evaluation samples (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="; ".join(
            f"{name}: {recipe.description}" for name, recipe in RECIPES.items()
        )
        + " (default: the first of the model)",
    )
    parser.add_argument(
        "--model",
        choices=MODEL_NAMES,
        help="LeNet-5 as it is used today, or as in the 1998 paper "
        "(default: the recipe's)",
    )
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="start with the weights of a LeNet5: a preset, the folder of a "
        "preset, or a .keras file; with other classes the output layer is "
        "initialized again",
    )
    parser.add_argument(
        "--seed",
        type=options.natural_number,
        default=98,
        metavar="N",
        help="decides weights, order and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        default="lenet5-run",
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the interrupted run in --output, with the same other "
        "options; start one if there is none",
    )
    _add_processes(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Trains by a recipe, and writes model, history and plots."""
    _join_processes(arguments)
    # The error has what tensorflow-datasets logs.
    logging.getLogger("absl").setLevel(logging.ERROR)
    result = train(
        arguments.dataset,
        arguments.recipe,
        arguments.model,
        arguments.start_from,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        eval_every=arguments.eval_every,
        eval_size=arguments.eval_size,
        seed=arguments.seed,
        output=arguments.output,
        resume=arguments.resume,
        data_dir=arguments.data_dir,
    )
    for path in result.files:
        print(f"wrote {path}")


def _defaults(number: Any) -> str:
    """Returns a default of every recipe, those with the same together."""
    names: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        names.setdefault(number(recipe), []).append(name)
    return "; ".join(
        f"{' and '.join(same)}: {value}" for value, same in names.items()
    )


def _steps(recipe: Recipe) -> str:
    if recipe.steps:
        return str(recipe.steps)
    return f"{recipe.epochs} epochs"


def _batch_size(recipe: Recipe) -> str:
    return str(recipe.batch_size)


def _eval_every(recipe: Recipe) -> str:
    return str(recipe.eval_every or "an epoch")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "Start the same command on every machine, with --backend jax.",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where the first process listens",
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
        help="which of them this is, from 0; the first writes and prints",
    )


def _join_processes(arguments: argparse.Namespace) -> None:
    """Joins the processes that train together, if there are several."""
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

    # The protocol of processes on CPUs.
    name = "jax_cpu_collectives_implementation"
    jax.config.update(name, "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(
        arguments.coordinator, arguments.num_processes, arguments.process_id
    )
    keras.distribution.set_distribution(keras.distribution.DataParallel())
