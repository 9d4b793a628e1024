import numpy as np

from keras_lenet.validation.images import check_images_and_labels


def test_valid_neighbours_of_bad_images_and_labels_are_accepted():
    images = np.full((4, 28, 28), 7, "uint8")
    x, y = check_images_and_labels(images, np.arange(6, 10, dtype="int8"), 10)
    assert x.shape == (4, 28, 28, 1)
    assert y.tolist() == [6, 7, 8, 9]
