"""The forms in which images and labels come."""

import keras
import numpy as np
import pytest

from tests.differential.twin import (
    compare,
    compile_plainly,
    make_data,
    table,
)
from tests.helpers import BACKEND, needs_tensorflow

ops = keras.ops


def fit(model, x, y=None, **arguments):
    arguments = {"shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, **arguments)


def use(model, x, y):
    """Fits, then evaluates the same, for which Keras converts it again."""
    compile_plainly(model)
    return (
        fit(model, x, y, batch_size=8),
        model.evaluate(x, y, batch_size=8, verbose=0),
    )


ARRAYS = {
    "uint8": lambda d: d.x,
    "int8": lambda d: (d.x // 2).astype("int8"),
    "uint16": lambda d: d.x.astype("uint16"),
    "int16": lambda d: d.x.astype("int16"),
    "int32": lambda d: d.x.astype("int32"),
    "int64": lambda d: d.x.astype("int64"),
    "float16": lambda d: d.x.astype("float16"),
    "float32": lambda d: d.x.astype("float32"),
    "float64": lambda d: d.x.astype("float64"),
    "bool": lambda d: d.x > 127,
    "big_endian": lambda d: d.x.astype(">f4"),
    "complex": lambda d: d.x.astype("complex64"),
    "objects": lambda d: d.x.astype(object),
    "text": lambda d: d.x.astype(str),
    "negative": lambda d: -d.x.astype("float32"),
    "fortran_order": lambda d: np.asfortranarray(d.x),
    "reversed": lambda d: d.x[::-1],
    "strided": lambda d: np.repeat(d.x, 2, axis=0)[::2],
    "read_only": lambda d: read_only(d.x),
    "memory_map": lambda d: d.x.view(np.memmap),
    "p16-without_channels": lambda d: d.x[..., 0],
    "without_channels_float32": lambda d: d.x[..., 0].astype("float32"),
    "list_of_one": lambda d: [d.x],
    "tuple_of_one": lambda d: (d.x,),
    "dict": lambda d: {"images": d.x},
    "dict_of_another_name": lambda d: {"pictures": d.x},
    "dict_of_two": lambda d: {"images": d.x, "others": d.y},
    "list_of_two": lambda d: [d.x, d.x],
    "list_of_images": lambda d: list(d.x),
    "list_of_lists": lambda d: d.x[:8].tolist(),
    "tensor": lambda d: ops.convert_to_tensor(d.x),
    "tensor_of_floats": lambda d: ops.convert_to_tensor(d.x, "float32"),
    "variable": lambda d: keras.Variable(d.x.astype("float32")),
    "none": lambda d: None,
    "number": lambda d: 3,
    "scalar_array": lambda d: np.float32(3),
    "empty": lambda d: d.x[:0],
    "nan": lambda d: np.where(d.x > 250, np.nan, d.x).astype("float32"),
    "masked": lambda d: np.ma.masked_array(d.x),
}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("convert", table(ARRAYS))
def test_images(convert):
    def scenario(model, data):
        x = convert(data)
        count = len(x) if isinstance(x, np.ndarray) and x.ndim else None
        return use(model, x, data.y[:count])

    compare(scenario)


LABELS = {
    "int32": lambda d: d.y.astype("int32"),
    "uint8": lambda d: d.y.astype("uint8"),
    "float64": lambda d: d.y.astype("float64"),
    "column": lambda d: d.y[:, np.newaxis],
    "list": lambda d: d.y.tolist(),
    "tuple": lambda d: tuple(d.y.tolist()),
    "list_of_array": lambda d: [d.y],
    "dict": lambda d: {"output": d.y},
    "dict_of_another_name": lambda d: {"other": d.y},
    "tensor": lambda d: ops.convert_to_tensor(d.y),
    "p13-none": lambda d: None,
    "text": lambda d: d.y.astype(str),
    "two_columns": lambda d: np.stack([d.y, d.y], axis=1),
    "bool": lambda d: d.y > 4,
    "of_other_length": lambda d: d.y[1:],
    "read_only": lambda d: read_only(d.y),
}


@pytest.mark.parametrize("convert", table(LABELS))
def test_labels(convert):
    def scenario(model, data):
        compile_plainly(model)
        y = convert(data)
        return (
            fit(model, data.x, y, batch_size=8),
            model.evaluate(data.x, y, batch_size=8, verbose=0),
        )

    compare(scenario)


class Sequence(keras.utils.PyDataset):
    """A user's own data set, of a batch for each index."""

    def __init__(self, data, size=8, weighted=False, **kwargs):
        super().__init__(**kwargs)
        self.data, self.size, self.weighted = data, size, weighted
        self.epochs_ended = 0

    def __len__(self):
        return -(-len(self.data.x) // self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        x, y, weights, *_ = (array[part] for array in self.data)
        return (x, y, weights) if self.weighted else (x, y)

    def on_epoch_end(self):
        self.epochs_ended += 1


class Endless(Sequence):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return super().__getitem__(index % 3)


def batches(data, size=8, weighted=False, repeat=1):
    sequence = Sequence(data, size, weighted)
    for _ in range(repeat):
        for index in range(len(sequence)):
            yield sequence[index]


def dataset(data, size=8):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((data.x, data.y)).batch(size)


def without_cardinality(data):
    return dataset(data).filter(lambda x, y: True)


def loader(data, size=8):
    import torch

    tensors = torch.utils.data.TensorDataset(
        torch.from_numpy(data.x), torch.from_numpy(data.y)
    )
    return torch.utils.data.DataLoader(tensors, batch_size=size)


# What makes the data, and arguments of `fit`.
SOURCES = {
    "sequence": (Sequence, {}),
    "sequence_2_epochs": (Sequence, {"epochs": 2}),
    "sequence_partial": (lambda d: Sequence(d, 7), {}),
    "sequence_weighted": (lambda d: Sequence(d, weighted=True), {}),
    "sequence_of_workers": (lambda d: Sequence(d, workers=2), {"epochs": 2}),
    "sequence_steps": (Sequence, {"steps_per_epoch": 2, "epochs": 2}),
    "p09-sequence_more_steps": (Sequence, {"steps_per_epoch": 5}),
    "sequence_class_weight": (Sequence, {"class_weight": {1: 2.0}}),
    "sequence_and_y": (Sequence, {"y": np.zeros(24)}),
    "sequence_and_weights": (Sequence, {"sample_weight": np.ones(24)}),
    "sequence_and_batch_size": (Sequence, {"batch_size": 4}),
    "sequence_and_split": (Sequence, {"validation_split": 0.5}),
    "endless": (Endless, {"steps_per_epoch": 4, "epochs": 2}),
    "generator": (batches, {}),
    "generator_2_epochs": (
        lambda d: batches(d, repeat=2),
        {"steps_per_epoch": 3, "epochs": 2},
    ),
    "p09-generator_ending_early": (
        batches,
        {"steps_per_epoch": 2, "epochs": 3},
    ),
    "generator_partial": (lambda d: batches(d, 7), {}),
    "generator_weighted": (lambda d: batches(d, weighted=True), {}),
    "generator_class_weight": (batches, {"class_weight": {1: 2.0}}),
    "generator_of_images_alone": (lambda d: iter([d.x[:8]]), {}),
    "generator_of_none": (lambda d: iter([]), {}),
    "generator_that_raises": (lambda d: raising(d), {}),
    "generator_of_two_shapes": (
        lambda d: iter([(d.x[:8], d.y[:8]), (d.x[:3], d.y[:3])]),
        {},
    ),
    "generator_of_dicts": (
        lambda d: iter([({"images": d.x[:8]}, {"output": d.y[:8]})]),
        {},
    ),
    "list_of_batches": (lambda d: list(batches(d)), {}),
    "torch_loader": (loader, {}),
    "torch_loader_2_epochs": (loader, {"epochs": 2}),
    "torch_loader_partial": (lambda d: loader(d, 7), {}),
    "p09-torch_loader_more_steps": (loader, {"steps_per_epoch": 5}),
}


def raising(data):
    yield data.x[:8], data.y[:8]
    raise RuntimeError("the disk is full")


@pytest.mark.parametrize(("make", "arguments"), table(SOURCES))
def test_sources(make, arguments, request):
    if "torch" in request.node.name:
        pytest.importorskip("torch")

    def scenario(model, data):
        compile_plainly(model)
        return fit(model, make(data), **arguments)

    compare(scenario)


DATASETS = {
    "batched": (dataset, {}),
    "partial": (lambda d: dataset(d, 7), {}),
    "two_epochs": (dataset, {"epochs": 2}),
    "repeated": (
        lambda d: dataset(d).repeat(),
        {"steps_per_epoch": 4, "epochs": 2},
    ),
    "repeated_without_steps_given_a_limit": (
        lambda d: dataset(d).repeat(2),
        {"epochs": 2},
    ),
    "unknown_cardinality": (without_cardinality, {"epochs": 2}),
    "p09-unknown_cardinality_more_steps": (
        without_cardinality,
        {"steps_per_epoch": 5},
    ),
    "p09-ending_early": (dataset, {"steps_per_epoch": 2, "epochs": 3}),
    "p09-more_steps": (dataset, {"steps_per_epoch": 5, "epochs": 2}),
    "weighted": (lambda d: weighted_dataset(d), {}),
    "class_weight": (dataset, {"class_weight": {1: 2.0}}),
    "floats": (
        lambda d: dataset(d).map(lambda x, y: (x * 1, y)),
        {},
    ),
    "dicts": (
        lambda d: dataset(d).map(lambda x, y: ({"images": x}, {"output": y})),
        {},
    ),
    "p13-unbatched": (lambda d: unbatched(d), {}),
    "images_alone": (lambda d: dataset(d).map(lambda x, y: x), {}),
    "empty": (lambda d: dataset(d).take(0), {}),
    "and_y": (dataset, {"y": np.zeros(24)}),
    "and_weights": (dataset, {"sample_weight": np.ones(24)}),
    "and_batch_size": (dataset, {"batch_size": 4}),
    "and_split": (dataset, {"validation_split": 0.5}),
    "without_channels": (
        lambda d: dataset(d).map(lambda x, y: (x[..., 0], y)),
        {},
    ),
    "unknown_batch_size": (lambda d: from_generator(d), {}),
    "validation": (
        dataset,
        {"validation_data": lambda d: dataset(d).take(2)},
    ),
    "validation_steps": (
        dataset,
        {
            "validation_data": lambda d: dataset(d).repeat(),
            "validation_steps": 2,
        },
    ),
    "p09-validation_ending_early": (
        dataset,
        {
            "validation_data": dataset,
            "validation_steps": 2,
            "epochs": 3,
        },
    ),
}


def unbatched(data):
    return dataset(data).unbatch()


def weighted_dataset(data):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(
        (data.x, data.y, data.weights)
    ).batch(8)


def from_generator(data):
    import tensorflow as tf

    return tf.data.Dataset.from_generator(
        lambda: batches(data, 7),
        output_signature=(
            tf.TensorSpec((None, 28, 28, 1), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )


def call_all(arguments, data):
    return {
        name: value(data) if callable(value) else value
        for name, value in arguments.items()
    }


@needs_tensorflow
@pytest.mark.parametrize(("make", "arguments"), table(DATASETS))
def test_datasets(make, arguments):
    def scenario(model, data):
        compile_plainly(model)
        return fit(model, make(data), **call_all(arguments, data))

    compare(scenario)


VALIDATION = {
    "sequence": Sequence,
    "generator": batches,
    "list": lambda d: [d.x_val, d.y_val],
    "tensors": lambda d: tuple(map(ops.convert_to_tensor, d.validation)),
    "column": lambda d: (d.x_val, d.y_val[:, np.newaxis]),
    "without_channels": lambda d: (d.x_val[..., 0], d.y_val),
    "floats": lambda d: (d.x_val.astype("float32"), d.y_val),
    "of_other_lengths": lambda d: (d.x_val, d.y_val[1:]),
    "empty": lambda d: (d.x_val[:0], d.y_val[:0]),
    "labels_in_a_list": lambda d: (d.x_val, d.y_val.tolist()),
}


@pytest.mark.parametrize("make", table(VALIDATION))
def test_validation_data(make):
    def scenario(model, data):
        compile_plainly(model)
        return fit(
            model,
            data.x,
            data.y,
            batch_size=8,
            epochs=2,
            validation_data=make(data),
        )

    # On some backends, plain Keras leaves out an evaluation on nothing.
    is_empty = make is VALIDATION["empty"]
    compare(scenario, refusal="`validation_data`: `x`" if is_empty else None)


PREDICTED = {
    name: ARRAYS[name]
    for name in (
        "float64",
        "int16",
        "without_channels_float32",
        "dict",
        "tensor",
        "text",
        "empty",
    )
}


@pytest.mark.parametrize("convert", table(PREDICTED))
def test_images_to_predict(convert):
    compare(lambda m, d: m.predict(convert(d), batch_size=8, verbose=0))


EVALUATED = {
    "sequence": Sequence,
    "generator": batches,
    "list_of_batches": lambda d: list(batches(d)),
    "images_alone": lambda d: iter([d.x[:8]]),
}


@pytest.mark.parametrize("make", table(EVALUATED))
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_other_sources_are_evaluated_and_predicted(method, make):
    def scenario(model, data):
        compile_plainly(model)
        return getattr(model, method)(make(data), verbose=0)

    compare(scenario)


@pytest.mark.parametrize("count", [1, 8, 9, 23])
def test_any_number_of_images(count):
    compare(
        lambda model, data: use(model, data.x, data.y),
        data=make_data(count),
    )


def test_epochs_of_a_sequence_end():
    def scenario(model, data):
        sequence = Sequence(data)
        compile_plainly(model)
        fit(model, sequence, epochs=3)
        return sequence.epochs_ended

    compare(scenario)


@needs_tensorflow
def test_p13_the_shape_of_a_dataset_is_an_input_shape():
    # A tensor of TensorFlow says its shape in a class of its own.
    from keras_lenet import LeNet5

    shape = dataset(make_data()).element_spec[0].shape[1:]
    plain = keras.Input(shape)
    assert LeNet5(input_shape=shape).input_shape == tuple(plain.shape)


# Plain Keras computes something of it without a word, or raises what says
# little: ours says what to do.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(lambda d: {"x": d.x}, r"`y`", id="p13-no_labels"),
        pytest.param(
            lambda d: {"x": d.x, "y": None}, r"`y`", id="p13-labels_none"
        ),
    ],
)
def test_fit_without_labels_says_so(arguments, message):
    def scenario(model, data):
        compile_plainly(model)
        return model.fit(**arguments(data), verbose=0)

    compare(scenario, refusal=message)


@needs_tensorflow
def test_p13_fit_on_unbatched_data_says_so():
    def scenario(model, data):
        compile_plainly(model)
        return model.fit(unbatched(data), verbose=0)

    compare(scenario, refusal=r"batch")


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's arrays")
def test_jax_arrays_on_a_device():
    import jax.numpy as jnp

    compare(lambda m, d: use(m, jnp.asarray(d.x), jnp.asarray(d.y)))
