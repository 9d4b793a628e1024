import string

from keras_lenet.datasets import DATASETS


def test_emnist_letters_have_upper_case_names():
    names = DATASETS["emnist/letters"].class_names
    assert list(names) == list(string.ascii_uppercase)


def test_class_names_are_unique_strings():
    for info in DATASETS.values():
        assert all(isinstance(name, str) for name in info.class_names)
        assert len(set(info.class_names)) == len(info.class_names)
