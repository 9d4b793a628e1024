"""The data sets that `load_data` loads by name."""

import string
from collections.abc import Sequence
from typing import NamedTuple


class DatasetInfo(NamedTuple):
    """The properties of a data set.

    Attributes:
        class_names: Sequence of strings, one for each label from 0 on.
        train_size: Integer. The number of training images.
        test_size: Integer. The number of test images.
        images: String. The size and colour of the images.
        url: String. The host that tensorflow-datasets downloads from, or
            `None` if the data set does not come from tensorflow-datasets.
        is_in_keras: Boolean. Whether `keras.datasets` has the same images in
            the same order.
        is_transposed: Boolean. Whether the images in tensorflow-datasets have
            rows and columns swapped.
        first_label: Integer. The first label in tensorflow-datasets.
    """

    class_names: Sequence[str]
    train_size: int
    test_size: int
    images: str = "28x28 grey"
    url: str | None = None
    is_in_keras: bool = False
    is_transposed: bool = False
    first_label: int = 0


# The balanced split merges lower-case letters that look like upper-case ones
# (https://arxiv.org/abs/1702.05373, section II-B).
_MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"

EMNIST_CLASSES = {
    "letters": string.ascii_uppercase,
    "balanced": _MERGED,
    "bymerge": _MERGED,
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}


def _emnist(
    split: str, train_size: int, test_size: int, first_label: int = 0
) -> DatasetInfo:
    return DatasetInfo(
        EMNIST_CLASSES[split],
        train_size,
        test_size,
        url="https://biometrics.nist.gov",
        is_transposed=True,
        first_label=first_label,
    )


DATASETS = {
    "digits": DatasetInfo(string.digits, 1_437, 360),
    "mnist": DatasetInfo(
        string.digits,
        60_000,
        10_000,
        url="https://storage.googleapis.com",
        is_in_keras=True,
    ),
    "fashion_mnist": DatasetInfo(
        tuple(
            "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,"
            "Ankle boot".split(",")
        ),
        60_000,
        10_000,
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        is_in_keras=True,
    ),
    "kmnist": DatasetInfo(
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        60_000,
        10_000,
        url="http://codh.rois.ac.jp",
    ),
    "emnist/letters": _emnist("letters", 88_800, 14_800, first_label=1),
    "emnist/balanced": _emnist("balanced", 112_800, 18_800),
    "emnist/digits": _emnist("digits", 240_000, 40_000),
    "cifar10": DatasetInfo(
        tuple(
            "airplane automobile bird cat deer dog frog horse ship "
            "truck".split()
        ),
        50_000,
        10_000,
        images="32x32 colour",
        url="https://www.cs.toronto.edu",
        is_in_keras=True,
    ),
}

# The columns are what `load_data` reads, its images, and how they are split.
FILES = (
    ("a folder with MNIST's four IDX files", "grey", "as the files"),
    (
        "a folder with `train/<class>/*.png` and `test/<class>/*.png`",
        "any",
        "as the folders",
    ),
    ("a folder with `<class>/*.png`", "any", "80 % / 20 %"),
    ("a folder with `train.csv` and `test.csv`", "square grey", "as the files"),
    ("a `.csv` file", "square grey", "80 % / 20 %"),
    (
        "an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test`",
        "any",
        "as the arrays",
    ),
)
