"""What a model's layers were when its class built them.

A subclass of `keras.Model` that builds its own layers saves its arguments, so
whatever a user changes on a layer afterwards would be lost. The record finds
these changes: for saving, and to decide whether a faster form of the same
network still computes what the layers do.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import keras

# Changes to these leave the output of a layer as it is.
_NOT_IN_FORWARD_PASS = {
    "_trainable",
    # Keras sets these when it loads weights; only quantized layers read them.
    "is_awq_calibrated",
    "is_gptq_calibrated",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
}


class LayerRecord:
    """Builds the layers of a model and remembers them as built.

    Args:
        changes: Dict of layer names to dicts, as `changed_configs` returns
            it: the entries of a layer's configuration that replace those of
            the layer as its model's class builds it.
    """

    def __init__(
        self, changes: dict[str, dict[str, Any]] | None = None
    ) -> None:
        self._changes = changes or {}
        self._layers: dict[str, Any] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._attributes: dict[str, dict[str, Any]] = {}

    def add(self, layer: keras.Layer) -> keras.Layer:
        """Returns the layer, with the changes that belong to it."""
        name = layer.name
        config = self._configs[name] = _plain_config(layer)
        changes = self._changes.get(name)
        if changes:
            layer = type(layer).from_config({**config, **changes})
        self._layers[name] = layer
        return layer

    def finish(self) -> None:
        """Remembers the attributes of all layers, once they are built."""
        unknown = sorted(set(self._changes) - set(self._layers))
        if unknown:
            raise ValueError(
                "`layer_configs` must have names of layers of the model: "
                f"{', '.join(self._layers)}. Received: {', '.join(unknown)}."
            )
        self._attributes = {
            name: dict(vars(layer))
            for name, layer in self._layers.items()
            if not set(self._changes.get(name, ())) - _CONFIG_NOT_IN_FORWARD
        }

    def changed_configs(self) -> dict[str, dict[str, Any]]:
        """Returns the entries of layers' configurations that have changed."""
        changed = {}
        for name, layer in self._layers.items():
            built = self._configs[name]
            entries = {
                key: value
                for key, value in _config_of(layer).items()
                if key not in built or value != built[key]
            }
            if entries:
                changed[name] = entries
        return changed

    def is_unchanged(self, names: Iterable[str] = ()) -> bool:
        """Returns whether layers compute what they did when built.

        It compares every attribute, known or not. Weights may have other
        values, regularizers and constraints.

        Args:
            names: Names of layers. Defaults to all layers.
        """
        return all(
            name in self._attributes
            and _is_same(vars(self._layers[name]), self._attributes[name])
            for name in names or self._layers
        )


_CONFIG_NOT_IN_FORWARD = {name.lstrip("_") for name in _NOT_IN_FORWARD_PASS}


def _is_same(attributes: dict[str, Any], built: dict[str, Any]) -> bool:
    return all(
        name in attributes and name in built and attributes[name] is built[name]
        for name in (attributes.keys() | built.keys()) - _NOT_IN_FORWARD_PASS
    )


def _config_of(layer: Any) -> dict[str, Any]:
    """Returns a configuration with what was set on the weights themselves.

    `layer.kernel.regularizer = ...` takes effect, but Keras saves
    `layer.kernel_regularizer` alone.
    """
    return {**_plain_config(layer), **dict(_changes_of_weights(layer))}


def _plain_config(layer: Any) -> dict[str, Any]:
    """Returns a configuration as it is outside of `save` and `load_model`."""

    def without_ids(value: Any) -> Any:
        # Keras numbers the objects in a file that share an instance.
        if isinstance(value, dict):
            return {
                key: without_ids(part)
                for key, part in value.items()
                if key != "shared_object_id"
            }
        return value

    return dict(without_ids(layer.get_config()))


def _changes_of_weights(layer: Any) -> Iterator[tuple[str, Any]]:
    for name in ("kernel", "bias"):
        weight = getattr(layer, name, None)
        for kind, module in (
            ("regularizer", keras.regularizers),
            ("constraint", keras.constraints),
        ):
            key = f"{name}_{kind}"
            value = getattr(weight, kind, None)
            if value is not None and value is not getattr(layer, key, None):
                yield key, module.serialize(value)
