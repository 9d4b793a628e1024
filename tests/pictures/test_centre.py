import numpy as np

from keras_lenet.pictures.centre import center_by_mass


def test_center_by_mass_moves_a_dot_to_the_middle_and_keeps_blanks():
    images = np.zeros((2, 5, 5), "uint8")
    images[0, 1, 4] = 9
    fields = center_by_mass(images, 15)
    assert np.argwhere(fields).tolist() == [[0, 7, 7]]
    assert fields[0, 7, 7] == 9
