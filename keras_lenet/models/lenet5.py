"""LeNet-5."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lenet.layers import PadTo32
from keras_lenet.models import (
    jax_programs,
    numpy_forward,
    tensorflow_programs,
    torch_forward,
)
from keras_lenet.models.base import BaseModel
from keras_lenet.models.fused_forward import (
    forward,
    is_being_compiled,
    supports_fused_forward,
)
from keras_lenet.models.layer_record import LayerRecord
from keras_lenet.models.multi_step import can_compile
from keras_lenet.types import Array, Tensor
from keras_lenet.validation.arguments import (
    check_positive_integer,
    standardize_class_names,
    standardize_input_shape,
)
from keras_lenet.validation.batches import check_shape


@keras.saving.register_keras_serializable(package="keras_lenet")
class LeNet5(BaseModel):
    """LeNet-5 as it is used today: ReLU, max-pooling and softmax.

    The topology and the layer names are those of the paper
    (https://doi.org/10.1109/5.726791, section II-B): convolutions `c1` (6 maps,
    5x5) and `c3` (16 maps, 5x5), each followed by 2x2 subsampling, `s2` and
    `s4`, then `c5` (120 units), `f6` (84 units) and `output`. As has become
    usual, the activations are ReLU, subsampling takes the maximum and has no
    weights, every map of `c3` sees all maps of `s2`, and the output is a
    softmax. With one channel and ten classes there are 61,706 weights.

    On a CPU with TensorFlow or JAX, `fit` runs as many steps in one compiled
    program as the callbacks allow, and computes each convolution and its
    pooling as one product (`keras_lenet.models.fused_forward`). Models that are
    built and compiled alike share the program. The result is that of Keras'
    layers and `fit`, which run instead if a layer has changed, a subclass has
    its own `call` or `train_step`, or `compile` got `run_eagerly=True` or
    `jit_compile=False`. Set `steps_per_execution` in `compile` to choose the
    number of steps. On TensorFlow, NumPy arrays become datasets without
    `tf.data` autotuning, which delays the end of each epoch. With PyTorch on a
    CPU, the network is computed with the channels first
    (`keras_lenet.models.torch_forward`). To classify single images fast, use
    `compile_predict`.

    Changes of a layer are saved with the model, as `layer_configs`.

    Args:
        num_classes: Integer. Number of classes. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`. With preprocessing,
            height and width are from 1 to 32; without, both are 32. Defaults
            to `(28, 28, 1)` with preprocessing and `(32, 32, 1)` without.
        include_preprocessing: Boolean. Whether the model takes raw pixels in
            [0, 255], centres them on a 32x32 field of zeros and divides by
            255. If `False`, it takes pixels in [0, 1]. Defaults to `True`.
        classifier_activation: String or callable. The activation of the
            `output` layer. `None` returns logits. Defaults to `"softmax"`.
        dtype: Dtype or dtype policy of the layers. Defaults to the global
            policy. Under 16-bit policies the `output` layer stays float32, so
            that probabilities and loss do not lose precision.
        name: String. The name of the model. Defaults to `"lenet5"`.
        class_names: Sequence of strings, the names of classes 0, 1, ... They
            are saved with the model, and `keras-lenet predict` prints them.
            Defaults to `None`, for numbers.
        **kwargs: `trainable`, as for any Keras model, and `layer_configs`,
            the changes of layers that `get_config` returns.

    Input shape:
        `(batch, height, width, channels)`: integers or floats.

    Output shape:
        `(batch, num_classes)`: probabilities, or logits if
        `classifier_activation=None`.

    Raises:
        ValueError: If `num_classes` is not a positive integer, `input_shape` is
            invalid, or `class_names` are not one for each class. From `fit`,
            `evaluate` and `predict`: if images have the wrong shape or scale, a
            label is not a whole number from 0 to `num_classes - 1`, or a
            crossentropy's `from_logits` does not match the output layer.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import LeNet5
    >>> model = LeNet5()
    >>> model.count_params()
    61706
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1))
    >>> tuple(model(images).shape)
    (2, 10)
    >>> model.get_layer("c3").output.shape
    (None, 10, 10, 16)
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] | None = None,
        include_preprocessing: bool = True,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        dtype: Any = None,
        name: str = "lenet5",
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_integer("num_classes", num_classes)
        names = standardize_class_names(class_names, num_classes)
        if input_shape is None:
            input_shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
        shape = standardize_input_shape(input_shape)
        _check_input_shape(shape, include_preprocessing)

        policy = keras.dtype_policies.get(dtype)
        head_policy = policy
        if policy.compute_dtype in ("float16", "bfloat16") and not isinstance(
            policy, keras.dtype_policies.DTypePolicyMap
        ):
            head_policy = keras.dtype_policies.get("float32")
        common = {"dtype": policy}
        spatial = {"data_format": "channels_last", **common}
        relu = {"activation": "relu"}

        record = LayerRecord(kwargs.pop("layer_configs", None))
        layers = [
            keras.layers.Conv2D(6, 5, name="c1", **relu, **spatial),
            keras.layers.MaxPooling2D(name="s2", **spatial),
            keras.layers.Conv2D(16, 5, name="c3", **relu, **spatial),
            keras.layers.MaxPooling2D(name="s4", **spatial),
            keras.layers.Flatten(name="flatten", **spatial),
            keras.layers.Dense(120, name="c5", **relu, **common),
            keras.layers.Dense(84, name="f6", **relu, **common),
            keras.layers.Dense(
                int(num_classes),
                activation=classifier_activation,
                name="output",
                dtype=head_policy,
            ),
        ]
        if include_preprocessing:
            layers = [
                PadTo32(name="pad_to_32", **common),
                keras.layers.Rescaling(1 / 255, name="rescaling", **common),
                *layers,
            ]
        x = inputs = keras.Input(shape, name="images")
        for layer in layers:
            x = record.add(layer)(x)
        super().__init__(inputs=inputs, outputs=x, name=name, **kwargs)
        self._finish(record, policy)

        self.num_classes = int(num_classes)
        self.class_names = names
        self.include_preprocessing = include_preprocessing
        self.classifier_activation = keras.activations.get(
            classifier_activation
        )

    def call(
        self, inputs: Tensor, training: Any = None, mask: Any = None
    ) -> Tensor:
        images = self._get_images(inputs)
        if images is None:
            return super().call(inputs, training=training, mask=mask)
        # Ask about the layers last, which takes longest.
        if is_being_compiled(images) and supports_fused_forward(self):
            check_shape(self, images)
            return forward(self, images, training=bool(training))
        if (
            keras.backend.backend() == "torch"
            and supports_fused_forward(self)
            and torch_forward.supports(self, images)
        ):
            check_shape(self, images)
            return torch_forward.forward(self, images)
        return super().call(inputs, training=training, mask=mask)

    def _get_images(self, inputs: Tensor) -> Tensor | None:
        """Returns the only input with a channel axis, or `None`."""
        if isinstance(inputs, dict):
            inputs = inputs.get("images")
        elif isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            (inputs,) = inputs
        if not keras.ops.is_tensor(inputs) or len(inputs.shape) not in (3, 4):
            return None
        if len(inputs.shape) == 3 and self.input_shape[-1] == 1:
            return keras.ops.expand_dims(inputs, -1)
        return inputs

    def trains_compiled(self) -> bool:
        return supports_fused_forward(self) and super().trains_compiled()

    def _compiling_predict(
        self, arguments: dict[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        if (
            keras.backend.backend() == "tensorflow"
            and tensorflow_programs.is_worth_compiling(arguments)
            and supports_fused_forward(self)
            and can_compile(self)
        ):
            return tensorflow_programs.compiled_predict(
                self, arguments.get("batch_size") or 32
            )
        return super()._compiling_predict(arguments)

    def compile_predict(self) -> Callable[[Any], Array]:
        """Returns the fastest way to classify a few images.

        A call of the model or of `predict_on_batch` mostly waits for the
        framework to start its operations. The returned function computes the
        same probabilities in NumPy, or on JAX in a program that is compiled
        for one image. It has a copy of the current weights: call this method
        again after training. For hundreds of images, `predict` is as fast. If
        a layer has changed, or a subclass has its own `call` or
        `predict_step`, the function calls `predict_on_batch`.

        Returns:
            Function that takes an image of shape `(height, width, channels)`,
            or `(height, width)` if there is one channel, and returns a float32
            array of shape `(num_classes,)`. It also takes a batch of images,
            and returns an array of shape `(batch, num_classes)`.

        Raises:
            ValueError: From the function, if images have another shape.

        Example:

        >>> import numpy as np
        >>> from keras_lenet import LeNet5
        >>> predict = LeNet5.from_preset("mnist").compile_predict()
        >>> image = np.zeros((28, 28), "uint8")
        >>> image[4:24, 13:16] = 255
        >>> int(predict(image).argmax())
        1
        """
        compute: Any = self.predict_on_batch
        is_plain = supports_fused_forward(self) and not self._is_overridden(
            "__call__", "call", "predict_step"
        )
        if is_plain and numpy_forward.supports(self):
            compute = numpy_forward.make_predict(self)
        compute_one = compute
        if is_plain and keras.backend.backend() == "jax":
            compute_one = jax_programs.compile_for_one_image(self)
        shape = self.input_shape[1:]

        def predict(images: Any) -> Array:
            images = np.asarray(images)
            if shape[-1] == 1 and images.shape[-2:] == shape[:2]:
                images = images[..., np.newaxis]
            if images.shape[-3:] != shape or images.ndim > 4:
                raise ValueError(
                    f"`images` must have the shape {shape} or (batch, "
                    f"{', '.join(map(str, shape))}). Received: "
                    f"images.shape={images.shape}"
                )
            batch = images if images.ndim == 4 else images[np.newaxis]
            outputs: Array = (
                compute_one(batch) if len(batch) == 1 else compute(batch)
            )
            return outputs if images.ndim == 4 else outputs[0]

        return predict

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classifier_activation": keras.activations.serialize(
                self.classifier_activation
            ),
        }


def _check_input_shape(
    shape: tuple[int, int, int], include_preprocessing: bool
) -> None:
    if include_preprocessing:
        # `PadTo32` rejects larger images, but not small ones with the channels
        # first.
        if shape[0] in (1, 3) and shape[1] == shape[2] and shape[2] > 4:
            raise ValueError(
                "`input_shape` must have the channels last. Received: "
                f"input_shape={shape!r}. Transpose the images with "
                "`images.transpose(0, 2, 3, 1)`."
            )
    elif shape[:2] != (32, 32):
        raise ValueError(
            "`input_shape` must be (32, 32, channels) if "
            "`include_preprocessing=False`. Received: "
            f"input_shape={shape!r}. Pad the images with `PadTo32`."
        )
