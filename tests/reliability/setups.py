"""Trains on one or several devices, in its own process.

python setups.py FOLDER mirrored | two_devices
python setups.py FOLDER two_processes ADDRESS PROCESS
"""

import json
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    ResumableTraining,
    SamplePredictions,
    datasets,
)


def mirrored():
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def two_devices():
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    return keras.distribution.DataParallel().scope()


def two_processes(address, process):
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, int(process))
    # Keras shares out the batches before it counts them.
    warnings.filterwarnings("ignore", "Your input ran out of data")
    return keras.distribution.DataParallel().scope()


SETUPS = {
    function.__name__: function
    for function in (mirrored, two_devices, two_processes)
}


class InterruptsInOneProcess(keras.callbacks.Callback):
    """Requests an interrupt in one of the processes, after 6 steps."""

    def __init__(self, resumable, process):
        super().__init__()
        self.resumable = resumable
        self.process = process

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 6 and process_index() == self.process:
            self.resumable.interrupt()


def make_data():
    generator = np.random.default_rng(98)
    images = generator.integers(0, 256, (128, 12, 12, 1)).astype("uint8")
    labels = generator.integers(0, 3, 128)
    # The first pixel identifies the image.
    images[:, 0, 0, 0] = np.arange(128)
    return (
        images,
        labels,
        datasets.image_dataset_from_array(
            images, labels, 16, shuffle=True, seed=5, drop_remainder=True
        ),
    )


def make_model():
    keras.utils.set_random_seed(1)
    model = LeNet5(3, (12, 12, 1))
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def process_index():
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def train(folder, model, state=None, interrupts=None, freq=1):
    """Trains 16 steps; returns weights and histories."""
    # A folder for each process shows that only the first one writes.
    own = folder / str(process_index())
    own.mkdir(parents=True, exist_ok=True)
    images, labels, data = make_data()
    held_out = HeldOutEvaluation(
        (images[:40], labels[:40]),
        3,
        sample_size=15,
        seed=2,
        batch_size=8,
        filename=own / "history.csv",
        strict=True,
    )
    resumable = ResumableTraining(
        state or own / "state.npz", data, freq=freq, verbose=0, strict=True
    )
    callbacks = [
        held_out,
        SamplePredictions(
            images[:3], labels[:3], 8, own / "{step}.png", strict=True
        ),
        BestModelCheckpoint(own / "best.keras", strict=True),
        resumable,
    ]
    if interrupts is not None:
        callbacks.append(InterruptsInOneProcess(resumable, interrupts))
    history = model.fit(
        data, epochs=2, callbacks=callbacks, verbose=0, shuffle=False
    ).history
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    return weights, [history, held_out.history]


def shares():
    """Returns the first pixels of the images that this process trains on."""
    distribution = keras.distribution.distribution()
    _, _, data = make_data()
    return [
        images[:, 0, 0, 0].numpy().tolist()
        for images, _ in distribution.distribute_dataset(data)
    ]


def main(folder, setup, *arguments):
    folder = Path(folder)
    found = {}
    with SETUPS[setup](*arguments):
        model = make_model()
        start = model.get_weights()
        found["whole"] = train(folder / "whole", model)
        # Reset the model instead of making another, which would compile again.
        model.set_weights(start)
        for variable in model.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape))
        # All processes read the same file.
        state = folder / "state.npz"
        try:
            last = 1 if arguments else 0
            train(folder / "resumed", model, state, last, freq=5)
        except KeyboardInterrupt as interrupt:
            found["interrupt"] = str(interrupt)
        model.set_weights([np.ones_like(weight) for weight in start])
        found["resumed"] = train(folder / "resumed", model, state, freq=5)
        if setup == "two_processes":
            found["shares"] = shares()
    name = "-".join(["found", *arguments[1:]])
    with (folder / f"{name}.json").open("w") as file:
        json.dump(found, file, default=lambda array: array.tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
