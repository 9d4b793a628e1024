"""Options that several benchmarks have."""

import argparse


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default="mnist",
        help="mnist, or a folder of MNIST's IDX files (default: %(default)s)",
    )
