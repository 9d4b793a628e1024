"""The subjects of `throughput.py`: the same network in many frameworks.

`throughput.py` starts this script once for each subject, and sends it
questions on standard input. Its docstring says why the comparison is fair.
"""

import functools
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MEASURES = ("train", "evaluate", "predict", "latency")
MIN_SECONDS = 0.2
CHECKED_EPOCHS = 3
CHECKED_IMAGES = 100
EVALUATED_IMAGES = 10_000

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
TrainEpoch = Callable[[], tuple[float, int]]


class LeftOutError(Exception):
    """Raised if a subject cannot run on this machine."""


def initial_arrays() -> list[Array]:
    """Returns Glorot kernels and zero biases in Keras' order and layout."""
    generator = np.random.default_rng(98)
    arrays = []
    for *window, inputs, outputs in (
        (5, 5, 1, 6),
        (5, 5, 6, 16),
        (400, 120),
        (120, 84),
        (84, 10),
    ):
        limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
        shape = (*window, inputs, outputs)
        kernel = generator.uniform(-limit, limit, shape)
        arrays += [kernel.astype("float32"), np.zeros(outputs, "float32")]
    return arrays


def work(name: str, path: str) -> None:
    """Answers questions on standard input with lines of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Redirect stdout, as libraries may print between the answers.
    os.dup2(2, 1)

    def answer(content: Record) -> None:
        answers.write(json.dumps(content) + "\n")

    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
        weights = [file[f"arr_{i}"] for i in range(len(file.files) - 2)]
    try:
        subject = SUBJECTS[name](images, labels, weights)
    except (ImportError, LeftOutError) as error:
        answer({"left_out": str(error)})
        return
    versions = {
        framework: importlib.import_module(framework).__version__
        for framework in subject.frameworks
    }
    answer(
        {
            "device": subject.device(),
            "measures": subject.measures,
            "parameters": subject.count_parameters(),
            "versions": versions,
        }
    )
    memory = peak_memory()
    block: Any = None
    for line in sys.stdin:
        action, *details = json.loads(line)
        if action == "prepare":
            prepared, block = prepare(subject, *details)
            growth = memory and peak_memory() - memory
            answer({**prepared, "memory_growth_mib": growth})
        else:
            answer(block())


def prepare(
    subject: "Subject", measure: str, batch_size: int
) -> tuple[Record, Callable[[], Record]]:
    """Compiles, and returns a record to check and a function that times."""
    data = subject.data if measure == "train" else subject.evaluated
    count = len(data(batch_size)[1])
    start = time.perf_counter()
    function = getattr(subject, measure)(batch_size)
    result = (
        function(subject.images[:1]) if measure == "latency" else function()
    )
    record = {
        "first_seconds": time.perf_counter() - start,
        "images": count,
    }
    if measure == "train":
        for _ in range(CHECKED_EPOCHS - 1):
            result = function()
        record["loss"], steps = result
        record["images"] = steps * batch_size
    elif measure == "evaluate":
        record["loss"] = result
    else:
        if measure == "latency":
            images = subject.images[:CHECKED_IMAGES]
            result = np.concatenate([function(i[np.newaxis]) for i in images])
        record["images"] = len(result)
        record["loss"] = cross_entropy(result, subject.labels[: len(result)])
    if measure == "latency":
        return record, lambda: time_latency(function, subject.images)
    return record, lambda: time_epochs(function, count)


def cross_entropy(probabilities: Array, labels: Array) -> float:
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen).mean())


def time_epochs(function: Callable[[], Any], count: int) -> Record:
    start, epochs, took = time.perf_counter(), 0, 0.0
    while took < MIN_SECONDS:
        function()
        epochs += 1
        took = time.perf_counter() - start
    return {"images_per_second": epochs * count / took}


def time_latency(function: Callable[[Array], Any], images: Array) -> Record:
    took: list[float] = []
    while sum(took) < MIN_SECONDS or len(took) < 100:
        image = images[len(took) % len(images)][np.newaxis]
        took.append(seconds(lambda image=image: function(image)))
    percentiles = np.percentile(took, (50, 90, 99)) * 1e6
    return {
        "images_per_second": float(1e6 / percentiles[0]),
        "microseconds": percentiles.tolist(),
    }


def peak_memory() -> Any:
    """Returns the peak resident memory in MiB, or `None` if unknown."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def whole_batches(images: Array, batch_size: int) -> int:
    return len(images) // batch_size * batch_size


DEVICES: dict[str, Callable[[Any], list[str]]] = {
    "tensorflow": lambda tf: [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ],
    "jax": lambda jax: [
        device.device_kind
        for device in jax.devices()
        if device.platform != "cpu"
    ],
    "torch": lambda torch: [
        torch.cuda.get_device_name(index)
        for index in range(torch.cuda.device_count())
    ],
}


class Subject:
    """Base class of the ways to run the network.

    Subclasses implement `train`, which takes a batch size and returns a
    function. The function trains an epoch, and returns the mean loss and the
    total number of steps. Most also implement `answer`, which returns a
    function from uint8 images to probabilities, both NumPy arrays.
    """

    frameworks: tuple[str, ...]
    measures: tuple[str, ...] = MEASURES

    def __init__(
        self, images: Array, labels: Array, weights: list[Array]
    ) -> None:
        self.images, self.labels, self.weights = images, labels, weights
        self.generator = np.random.default_rng(98)

    def device(self) -> str:
        framework = self.frameworks[-1]
        names = DEVICES[framework](importlib.import_module(framework))
        return ", ".join(names) or "CPU"

    def count_parameters(self) -> int:
        return sum(array.size for array in self.weights)

    def batches(self, batch_size: int) -> Array:
        """Returns the indices of an epoch's batches in a new order."""
        count = whole_batches(self.images, batch_size)
        order = self.generator.permutation(count).astype("int32")
        return order.reshape(-1, batch_size)

    def data(
        self, batch_size: int, most: int | None = None
    ) -> tuple[Array, Array]:
        count = whole_batches(self.images[:most], batch_size)
        return self.images[:count], self.labels[:count]

    def evaluated(self, batch_size: int) -> tuple[Array, Array]:
        return self.data(batch_size, EVALUATED_IMAGES)

    def answer(self) -> Callable[[Array], Array]:
        raise NotImplementedError

    def predict(self, batch_size: int) -> Callable[[], Array]:
        answer = self.answer()
        images, _ = self.evaluated(batch_size)
        batches = images.reshape(-1, batch_size, *images.shape[1:])
        return lambda: np.concatenate([answer(batch) for batch in batches])

    def evaluate(self, batch_size: int) -> Callable[[], float]:
        predict = self.predict(batch_size)
        _, labels = self.evaluated(batch_size)
        return lambda: cross_entropy(predict(), labels)

    def latency(self, _: int) -> Callable[[Array], Array]:
        return self.answer()


def plain_layers(padding: str) -> list[Any]:
    """Returns the usual layers of LeNet-5, for images in [0, 1]."""
    from keras import layers

    return [
        layers.Conv2D(6, 5, padding=padding, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(120, activation="relu"),
        layers.Dense(84, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]


class Keras(Subject):
    """Keras' `fit`, `evaluate` and `predict`."""

    def __init__(self, backend: str, network: str, *data: Any) -> None:
        super().__init__(*data)
        os.environ["KERAS_BACKEND"] = backend
        importlib.import_module(backend)
        self.backend = backend
        self.network = network
        self.frameworks = ("keras", backend)
        self.model = self.build()

    def build(self) -> Any:
        import keras

        from keras_lenet import LeNet5

        if self.network == "LeNet5":
            model = LeNet5()
        else:
            model = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    keras.layers.Rescaling(1 / 255),
                    *plain_layers(padding="same"),
                ]
            )
        model.set_weights(self.weights)
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    def count_parameters(self) -> int:
        return int(self.model.count_params())

    def train(self, batch_size: int) -> TrainEpoch:
        model = self.build()
        images, labels = self.data(batch_size)
        given: dict[str, Any]
        if self.backend == "tensorflow":
            from keras_lenet.datasets import image_dataset_from_array

            dataset = image_dataset_from_array(
                images, labels, batch_size, shuffle=True, seed=98
            )
            given = {"x": dataset, "shuffle": False}
        else:
            given = {"x": images, "y": labels, "batch_size": batch_size}

        def train_epoch() -> tuple[float, int]:
            history = model.fit(**given, verbose=0).history
            return history["loss"][-1], int(model.optimizer.iterations)

        return train_epoch

    def evaluate(self, batch_size: int) -> Callable[[], float]:
        model = self.build()
        images, labels = self.evaluated(batch_size)
        return lambda: model.evaluate(
            images, labels, batch_size=batch_size, verbose=0
        )[0]

    def predict(self, batch_size: int) -> Callable[[], Array]:
        model = self.build()
        images, _ = self.evaluated(batch_size)
        return lambda: model.predict(images, batch_size=batch_size, verbose=0)

    def answer(self) -> Callable[[Array], Array]:
        model = self.build()
        if hasattr(model, "compile_predict"):
            return model.compile_predict()
        if self.backend == "tensorflow":
            import tensorflow as tf

            function = tf.function(lambda image: model(image, training=False))
            return lambda image: function(tf.constant(image)).numpy()
        if self.backend == "jax":
            import jax

            function = jax.jit(lambda image: model(image, training=False))
            return lambda image: np.asarray(function(image))
        import torch

        @torch.inference_mode()
        def respond(image: Array) -> Array:
            return model(image, training=False).cpu().numpy()

        return respond


class Bare(Keras):
    """The step that `LeNet5.fit` compiles, without `fit`."""

    measures = ("train",)

    def __init__(self, backend: str, *data: Any) -> None:
        super().__init__(backend, "LeNet5", *data)
        if backend == "tensorflow" and self.device() != "CPU":
            raise LeftOutError("on a GPU, Keras' own step reads from tf.data")

    def build(self) -> Any:
        model = super().build()
        # Build the metrics' variables.
        model.evaluate(self.images[:1], self.labels[:1], verbose=0)
        model.optimizer.build(model.trainable_variables)
        return model

    def train(self, batch_size: int) -> TrainEpoch:
        self.model = self.build()
        self.model.reset_metrics()
        if self.backend == "tensorflow":
            return self.train_in_tensorflow(batch_size)
        return self.train_in_jax(batch_size)

    def train_in_tensorflow(self, batch_size: int) -> TrainEpoch:
        import tensorflow as tf

        model = self.model
        model.steps_per_execution = len(self.images) // batch_size
        function = model.make_train_function()
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def train_epoch() -> tuple[float, int]:
            model.reset_metrics()
            logs = function(
                (tf.gather(images, index), tf.gather(labels, index))
                for index in tf.constant(self.batches(batch_size))
            )
            return float(logs["loss"]), int(model.optimizer.iterations)

        return train_epoch

    def train_in_jax(self, batch_size: int) -> TrainEpoch:
        import jax

        model = self.model
        images, labels = jax.device_put((self.images, self.labels))

        def values(variables: Any) -> Any:
            return [jax.numpy.array(variable.value) for variable in variables]

        state = (
            values(model.trainable_variables),
            values(model.non_trainable_variables),
            values(model.optimizer.variables),
        )
        zeros = [np.asarray(v.value) for v in model.metrics_variables]

        @functools.partial(jax.jit, donate_argnums=0)
        def loop(state: Any, metrics: Any, order: Any) -> Any:
            def step(state: Any, index: Any) -> Any:
                logs, state = model.train_step(
                    state, (images[index], labels[index])
                )
                return state, logs["loss"]

            (*state, _), losses = jax.lax.scan(step, (*state, metrics), order)
            return tuple(state), losses[-1]

        def train_epoch() -> tuple[float, int]:
            nonlocal state
            state, loss = loop(state, zeros, self.batches(batch_size))
            return float(loss), int(state[2][0])

        return train_epoch


class PyTorch(Subject):
    """The usual network with a hand-written loop."""

    frameworks = ("torch",)

    def __init__(self, variant: str, *data: Any) -> None:
        super().__init__(*data)
        import torch

        self.variant = variant
        self.on = "cuda" if torch.cuda.is_available() else "cpu"
        if variant == "cuda graphs" and self.on == "cpu":
            raise LeftOutError("no GPU that PyTorch can use")
        self.all_images = torch.from_numpy(self.images).to(self.on)
        self.all_images = self.all_images.permute(0, 3, 1, 2).contiguous()
        self.all_labels = torch.from_numpy(self.labels).to(self.on)
        self.model = self.build()
        if variant in ("compile", "cuda graphs"):
            try:
                self.compile(lambda x: x + 1)(torch.ones(2, device=self.on))
            except Exception as error:
                raise LeftOutError(f"torch.compile: {error}") from error

    def build(self) -> Any:
        import torch
        from torch import nn

        model = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, 10),
        )
        for parameter, array in zip(
            model.parameters(), self.weights, strict=True
        ):
            if array.shape == (400, 120):
                # PyTorch flattens feature maps first.
                array = array.reshape(25, 16, 120).swapaxes(0, 1)
                array = array.reshape(400, 120)
            axes = (3, 2, 0, 1) if array.ndim == 4 else None
            with torch.no_grad():
                parameter.copy_(torch.tensor(array.transpose(axes)))
        if self.variant == "channels-last":
            model.to(memory_format=torch.channels_last)
        self.model = model.to(self.on)
        return self.model

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        torch.compiler.reset()
        if self.variant == "compile":
            return torch.compile(function, dynamic=False)
        if self.variant == "cuda graphs":
            return torch.compile(function, mode="reduce-overhead")
        return function

    def logits(self, images: Any) -> Any:
        return self.model(images.float().div_(255))

    def count_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def train(self, batch_size: int) -> TrainEpoch:
        import torch
        from torch.nn.functional import cross_entropy

        first, *_ = parameters = list(self.build().parameters())
        optimizer = torch.optim.Adam(
            parameters,
            eps=1e-7,
            foreach=self.on == "cpu",
            fused=self.on == "cuda",
        )
        loss_of = self.compile(
            lambda images, labels: cross_entropy(self.logits(images), labels)
        )
        count = whole_batches(self.images, batch_size)

        def train_epoch() -> tuple[float, int]:
            total = torch.zeros((), device=self.on)
            order = torch.randperm(count, device=self.on)
            for index in order.split(batch_size):
                torch.compiler.cudagraph_mark_step_begin()
                optimizer.zero_grad()
                loss = loss_of(self.all_images[index], self.all_labels[index])
                loss.backward()
                optimizer.step()
                total += loss.detach()
            steps = int(optimizer.state[first]["step"])
            return float(total) * batch_size / count, steps

        return train_epoch

    def answer(self) -> Callable[[Array], Array]:
        import torch

        self.build()
        probabilities = self.compile(lambda x: self.logits(x).softmax(1))

        @torch.inference_mode()
        def respond(images: Array) -> Array:
            x = torch.from_numpy(images).to(self.on).permute(0, 3, 1, 2)
            return probabilities(x).cpu().numpy()

        return respond


class Jax(Subject):
    """A jitted step with ordinary convolutions and a donated state."""

    frameworks = ("jax",)

    @staticmethod
    def logits(weights: Any, images: Any) -> Any:
        import jax
        from jax import lax

        x = images.astype("float32") / 255
        for layer, padding in ((0, 2), (2, 0)):
            x = lax.conv_general_dilated(
                x,
                weights[layer],
                (1, 1),
                2 * [(padding, padding)],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + weights[layer + 1])
            window = (1, 2, 2, 1)
            x = lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")
        x = x.reshape(len(x), -1)
        for layer in (4, 6, 8):
            x = x @ weights[layer] + weights[layer + 1]
            x = jax.nn.relu(x) if layer < 8 else x
        return x

    @classmethod
    def loss(cls, weights: Any, images: Any, labels: Any) -> Any:
        import jax

        logs = jax.nn.log_softmax(cls.logits(weights, images))
        return -jax.numpy.take_along_axis(logs, labels[:, None], 1).mean()

    def train(self, batch_size: int) -> TrainEpoch:
        import jax
        from jax import numpy as jnp

        images, labels = jax.device_put((self.images, self.labels))

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: Any, images: Any, labels: Any, index: Any) -> Any:
            weights, first, second, count, total = state
            loss, gradients = jax.value_and_grad(self.loss)(
                weights, images[index], labels[index]
            )
            count += 1
            rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            new = []
            for w, m, v, g in zip(
                weights, first, second, gradients, strict=True
            ):
                m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
                new.append((w - rate * m / (jnp.sqrt(v) + 1e-7), m, v))
            return (*map(list, zip(*new, strict=True)), count, total + loss)

        zeros = list(map(np.zeros_like, self.weights))
        weights, first, second = map(
            lambda arrays: [jnp.array(array) for array in arrays],
            (self.weights, zeros, zeros),
        )
        state = (weights, first, second, jnp.array(0), jnp.array(0.0))

        def train_epoch() -> tuple[float, int]:
            nonlocal state
            state = (*state[:-1], jnp.array(0.0))
            batches = self.batches(batch_size)
            for index in batches:
                state = step(state, images, labels, index)
            return float(state[-1]) / len(batches), int(state[3])

        return train_epoch

    def answer(self) -> Callable[[Array], Array]:
        import jax

        weights = jax.device_put(self.weights)
        respond = jax.jit(lambda x: jax.nn.softmax(self.logits(weights, x)))
        return lambda images: np.asarray(respond(images))


class TensorFlow(Subject):
    """A `tf.function` that loops over all batches of an epoch."""

    frameworks = ("tensorflow",)
    measures = ("train",)

    def __init__(self, *data: Any) -> None:
        super().__init__(*data)
        importlib.import_module("tensorflow")

    @staticmethod
    def loss(weights: Any, images: Any, labels: Any) -> Any:
        import tensorflow as tf

        x = tf.cast(images, "float32") / 255
        for layer, padding in ((0, "SAME"), (2, "VALID")):
            x = tf.nn.conv2d(x, weights[layer], 1, padding)
            x = tf.nn.relu(tf.nn.bias_add(x, weights[layer + 1]))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.reshape(x, (-1, 400))
        for layer in (4, 6, 8):
            x = tf.nn.bias_add(x @ weights[layer], weights[layer + 1])
            x = tf.nn.relu(x) if layer < 8 else x
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)
        )

    def train(self, batch_size: int) -> TrainEpoch:
        import tensorflow as tf

        weights = list(map(tf.Variable, self.weights))
        first = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
        second = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
        steps = tf.Variable(0.0)
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def step(index: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = self.loss(
                    weights, tf.gather(images, index), tf.gather(labels, index)
                )
            gradients = tape.gradient(loss, weights)
            count = steps.assign_add(1)
            for w, m, v, g in zip(
                weights, first, second, gradients, strict=True
            ):
                tf.raw_ops.ResourceApplyAdam(
                    var=w.handle,
                    m=m.handle,
                    v=v.handle,
                    beta1_power=0.9**count,
                    beta2_power=0.999**count,
                    lr=1e-3,
                    beta1=0.9,
                    beta2=0.999,
                    epsilon=1e-7,
                    grad=g,
                )
            return loss

        @tf.function
        def loop(batches: Any) -> Any:
            def body(i: Any, total: Any) -> Any:
                return i + 1, total + step(batches[i])

            _, total = tf.while_loop(
                lambda i, _: i < len(batches), body, (0, tf.constant(0.0))
            )
            return total / len(batches)

        def train_epoch() -> tuple[float, int]:
            return float(loop(self.batches(batch_size))), int(steps)

        return train_epoch


SUBJECTS: dict[str, Callable[..., Any]] = {
    **{f"fit {b}": functools.partial(Keras, b, "LeNet5") for b in DEVICES},
    **{
        f"sequential {b}": functools.partial(Keras, b, "Sequential")
        for b in DEVICES
    },
    "bare tensorflow": functools.partial(Bare, "tensorflow"),
    "bare jax": functools.partial(Bare, "jax"),
    **{
        f"pytorch {variant}": functools.partial(PyTorch, variant)
        for variant in ("eager", "channels-last", "compile", "cuda graphs")
    },
    "jax loop": Jax,
    "tensorflow loop": TensorFlow,
}


if __name__ == "__main__":
    work(*sys.argv[1:])
