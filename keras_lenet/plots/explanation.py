"""What a model's layers and answers depend on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from keras_lenet.plots.figure import (
    SIGNED_COLORS,
    WRONG_COLOR,
    NotebookFigure,
    class_name,
    escape_tex,
    make_panels,
    show_input,
)
from keras_lenet.plots.model import (
    are_probabilities,
    check_classifier,
    check_graph,
    compute_layers,
    get_layer,
    make_function,
    predict,
    standardize_images,
    to_numpy,
    to_probabilities,
)
from keras_lenet.types import Array, Tensor
from keras_lenet.validation.arguments import is_positive_integer
from keras_lenet.validation.images import check_labels

# Okabe and Ito's palette without yellow, which is too bright for text, and
# three colours of Paul Tol's (https://sronpersonalpages.nl/~pault/).
_CLASS_COLORS = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#882255",
    "#999933",
    "#777777",
)


def plot_embedding(
    model: Any,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    layer_name: str = "f6",
    method: str = "pca",
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draws a layer's outputs for many images as points of a plane.

    The number of its class marks each image. The name of each class is at the
    mean of its points.

    Args:
        model: A functional model or a built `keras.Sequential` that takes
            images with the channels last.
        images: Array of shape `(n, height, width, channels)`, or
            `(n, height, width)`, of the size and the scale that the model
            takes. At least 3.
        labels: Array of integers of shape `(n,)`, the actual classes.
        layer_name: String. The layer's name. Defaults to `"f6"`.
        method: String. `"pca"` draws the two directions with the largest
            variance. `"tsne"` draws neighbours close together; distances and
            sizes of groups have no meaning. Both always give the same plot
            for the same numbers. Defaults to `"pca"`.
        class_names: Sequence of strings, the names of the classes from 0.
            Defaults to their numbers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If an argument is invalid, or the layer has fewer than 2
            outputs.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> from keras_lenet.plots import plot_embedding
    >>> _, (images, labels) = load_data("digits")
    >>> model = LeNet5.from_preset("digits")
    >>> figure = plot_embedding(model, images, labels)
    >>> figure.axes[0].get_title()
    'f6 of lenet5: 84 outputs for 360 images'
    """
    if method not in ("pca", "tsne"):
        raise ValueError(
            f"`method` must be 'pca' or 'tsne'. Received: method={method!r}"
        )
    check_graph(model)
    pixels = standardize_images(model, images)
    classes = _standardize_labels(labels, len(pixels))
    if len(pixels) < 3:
        raise ValueError(
            "`images` must be at least 3 to be compared. Received: "
            f"{len(pixels)} images"
        )
    layer = get_layer(model, layer_name, "layer_name")
    if all(size == 1 for size in layer.output.shape[1:]):
        raise ValueError(
            "`layer_name` must name a layer with at least 2 outputs. Received: "
            f"layer_name={layer_name!r}"
        )
    (outputs,) = compute_layers(model, [layer], pixels)
    outputs = outputs.reshape(len(pixels), -1)
    points, axis_labels = _project(outputs, method)

    figure = NotebookFigure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for label in np.unique(classes):
        of_class = points[classes == label]
        color = _CLASS_COLORS[label % len(_CLASS_COLORS)]
        axes.scatter(
            of_class[:, 0],
            of_class[:, 1],
            s=30,
            color=color,
            marker=f"${label}$",
            linewidths=0,
            alpha=0.7,
        )
        x, y = of_class.mean(axis=0)
        axes.text(
            x,
            y,
            class_name(label, class_names),
            color=color,
            fontsize=12,
            fontweight="bold",
            ha="center",
            va="center",
            bbox={
                "boxstyle": "round",
                "facecolor": "white",
                "edgecolor": color,
            },
        )
    axes.set_xlabel(axis_labels[0])
    axes.set_ylabel(axis_labels[1])
    if method == "tsne":
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_title(
        f"{escape_tex(layer_name)} of {escape_tex(model.name)}: "
        f"{outputs.shape[1]:,} outputs for {len(pixels):,} images"
    )
    return figure


def plot_saliency(
    model: Any, images: npt.ArrayLike, labels: npt.ArrayLike | None = None
) -> Figure:
    """Draws how much the score of a class depends on each pixel.

    The saliency of a pixel is the absolute value of the derivative of the
    score with respect to the pixel (https://arxiv.org/abs/1312.6034), the
    largest of its channels. Each image has its own scale. The score is the
    output of the last layer before its softmax, or with another activation
    such as sigmoid, the logarithm of the class's probability.

    Args:
        model: A functional model or a built `keras.Sequential`. It takes
            images with the channels last, and returns one number per class.
        images: Array of shape `(n, height, width, channels)`, 1 channel
            (grey) or 3 (colour), or `(n, height, width)`, of the size and the
            scale that the model takes.
        labels: Array of integers of shape `(n,)`, the classes whose scores to
            explain. Defaults to the model's answers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If the model has another structure, images have another
            shape or are not finite, or a label is not a class.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> from keras_lenet.plots import plot_saliency
    >>> _, (images, labels) = load_data("digits")
    >>> model = LeNet5.from_preset("digits")
    >>> figure = plot_saliency(model, images[:2], labels[:2])
    >>> figure.axes[-1].get_ylabel()
    '|d score / d pixel|'
    """
    pixels, outputs, classes = _standardize(model, images, labels)
    score = _make_score(model, are_probabilities(model, outputs))
    gradients = _differentiate(score, pixels, classes)
    maps = np.abs(gradients).max(axis=-1)

    def draw(axes: Axes, index: int) -> AxesImage:
        limit = float(maps[index].max()) or 1.0
        axes.set_xlabel(f"max {limit:.2g}", fontsize=9)
        return axes.imshow(maps[index], cmap="magma", vmin=0, vmax=limit)

    probabilities = to_probabilities(model, outputs)
    figure, bar = _draw_maps(pixels, probabilities, classes, draw)
    # Each image has its own scale.
    bar.set_ticks(bar.mappable.get_clim(), labels=["0", "max"])
    bar.set_label("|d score / d pixel|")
    figure.suptitle(
        "Saliency: how the score of a class depends on each pixel",
        fontsize=11,
    )
    return figure


def plot_occlusion(
    model: Any,
    images: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    size: int = 5,
) -> Figure:
    """Draws how the probability of a class drops when a part is covered.

    A square is moved over the image (https://arxiv.org/abs/1311.2901). The
    number at a pixel is the drop while the square covers `size // 2` pixels
    above and left of it, and the others below and right, as far as the image
    reaches. The square has the colour of the background: the median of the
    image's border pixels, for each channel.

    Args:
        model: A model, as for `plot_saliency`. If it does not return
            probabilities, they are the softmax of its outputs.
        images: Array, as for `plot_saliency`.
        labels: Array of integers of shape `(n,)`, the classes whose
            probabilities to explain. Defaults to the model's answers.
        size: Integer. The height and width of the square. Defaults to `5`.

    Returns:
        A `Figure`.

    Raises:
        ValueError: As for `plot_saliency`, or if `size` is not a positive
            integer.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> from keras_lenet.plots import plot_occlusion
    >>> _, (images, labels) = load_data("digits")
    >>> model = LeNet5.from_preset("digits")
    >>> figure = plot_occlusion(model, images[:2], labels[:2], size=3)
    >>> figure.axes[-1].get_ylabel()
    'Drop of the probability'
    """
    if not is_positive_integer(size):
        raise ValueError(
            f"`size` must be a positive integer. Received: size={size!r}"
        )
    pixels, outputs, classes = _standardize(model, images, labels)
    probabilities = to_probabilities(model, outputs)
    drops = [
        before[label] - _occlude(model, image, label, size)
        for image, before, label in zip(
            pixels, probabilities, classes, strict=True
        )
    ]
    limit = float(np.abs(drops).max()) or 1.0

    def draw(axes: Axes, index: int) -> AxesImage:
        return axes.imshow(
            drops[index], cmap=SIGNED_COLORS, vmin=-limit, vmax=limit
        )

    figure, bar = _draw_maps(pixels, probabilities, classes, draw)
    bar.set_label("Drop of the probability")
    figure.suptitle(
        "Occlusion: how the probability of a class drops\n"
        f"when {size}x{size} pixels around a pixel are covered",
        fontsize=11,
    )
    return figure


def _standardize_labels(
    labels: npt.ArrayLike, count: int, num_classes: int | None = None
) -> Array:
    classes = np.asarray(labels)
    if classes.shape != (count,):
        raise ValueError(
            "`labels` must be one class per image. Received: labels of shape "
            f"{classes.shape} for {count} images"
        )
    check_labels(classes, num_classes)
    return classes


def _standardize(
    model: Any, images: npt.ArrayLike, labels: npt.ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Returns checked images, the model's outputs, and classes to explain."""
    check_classifier(model)
    pixels = standardize_images(model, images)
    if labels is not None:
        num_classes = model.outputs[0].shape[1]
        labels = _standardize_labels(labels, len(pixels), num_classes)
    outputs = predict(model, pixels)
    classes = outputs.argmax(axis=1) if labels is None else labels
    return pixels, outputs, np.asarray(classes)


def _project(outputs: Array, method: str) -> tuple[Array, list[str]]:
    """Returns points of a plane, and what its axes are."""
    if method == "tsne":
        from sklearn.manifold import TSNE

        tsne = TSNE(
            init="pca",
            # Few images have few neighbours.
            perplexity=min(30.0, (len(outputs) - 1) / 3),
            random_state=0,
        )
        return tsne.fit_transform(outputs), ["t-SNE 1", "t-SNE 2"]
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=0)
    points = pca.fit_transform(outputs)
    return points, [
        f"Component {number} ({share:.1%} of the variance)"
        for number, share in enumerate(pca.explained_variance_ratio_, 1)
    ]


def _make_score(model: Any, probabilities: bool) -> Callable[[Any], Tensor]:
    """Returns a function of images that computes the scores of all classes."""
    import keras
    from keras import ops

    last = model.layers[-1]
    if not probabilities:
        return make_function(model, model.outputs[0])
    activation = getattr(last, "activation", None)
    is_softmax = activation is keras.activations.softmax
    if isinstance(last, keras.layers.Softmax) or (
        is_softmax and isinstance(last, keras.layers.Activation)
    ):
        return make_function(model, last.input)
    if (
        not is_softmax
        or not isinstance(last, keras.layers.Dense)
        or last.quantization_mode is not None
    ):
        compute = make_function(model, model.outputs[0])
        return lambda x: ops.log(ops.maximum(compute(x), 1e-7))
    # The float32 gradient of softmax vanishes where it is nearly 0 or 1.
    inputs = make_function(model, last.input)
    bias = last.bias if last.use_bias else 0.0

    def score(x: Any) -> Tensor:
        features = ops.cast(inputs(x), last.compute_dtype)
        return ops.matmul(features, last.kernel) + bias

    return score


def _differentiate(
    score: Callable[[Any], Tensor], images: Array, classes: Array
) -> Array:
    """Returns the derivatives of the classes' scores, in the images' shape."""
    import keras
    from keras import ops

    def total(x: Any) -> Tensor:
        # The scores of an image depend on no other image.
        scores = score(x)
        chosen = ops.one_hot(classes, scores.shape[-1], dtype=scores.dtype)
        return ops.sum(scores * chosen)

    x = ops.convert_to_tensor(images, "float32")
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return to_numpy(jax.grad(total)(x))
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = total(x)
        return to_numpy(tape.gradient(y, x))
    import torch

    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = total(x)
    # Unlike `backward`, it leaves the gradients of the weights unchanged.
    return to_numpy(torch.autograd.grad(y, x)[0])


def _occlude(model: Any, image: Array, label: int, size: int) -> Array:
    """Returns a class's probability with a square at each pixel."""
    height, width, _ = image.shape
    inner = np.zeros((height, width), bool)
    inner[1:-1, 1:-1] = True
    # With this method, the median is one of the pixels, also among integers.
    background = np.percentile(image[~inner], 50, axis=0, method="lower")
    result = np.empty((height, width), "float32")
    for row in range(height):
        covered = np.repeat(image[np.newaxis], width, axis=0)
        for column in range(width):
            top, left = row - size // 2, column - size // 2
            covered[
                column,
                max(0, top) : top + size,
                max(0, left) : left + size,
            ] = background
        outputs = predict(model, covered)
        result[row] = to_probabilities(model, outputs)[:, label]
    return result


def _draw_maps(
    images: Array,
    probabilities: Array,
    classes: Array,
    draw: Callable[[Axes, int], AxesImage],
) -> tuple[Figure, Any]:
    """Draws images, each beside what `draw` shows for its index.

    Returns the figure and its colour bar.
    """
    count = len(images)
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(max(4.5, 2 * columns + 1), 1.4 * rows + 1),
        layout="constrained",
    )
    panels = make_panels(figure, rows, 2 * columns, 2 * count)
    answers = probabilities.argmax(axis=1)
    for index, label in enumerate(classes):
        left, right = panels[2 * index : 2 * index + 2]
        show_input(left, images[index])
        is_answer = answers[index] == label
        left.set_title(
            f"{label} ({probabilities[index, label]:.1%})"
            + ("" if is_answer else f", answer {answers[index]}"),
            fontsize=9,
            loc="left",
            color="black" if is_answer else WRONG_COLOR,
        )
        shown = draw(right, index)
        right.set_xticks([])
        right.set_yticks([])
    return figure, figure.colorbar(shown, ax=list(panels), pad=0.02)
