"""A record of a model's layers as its class built them.

A subclass of `keras.Model` that builds its own layers saves only its arguments,
so a user's later changes of a layer would be lost. The record finds these
changes, to save them and to decide whether `fused_forward` still computes what
the layers do.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_lenet.keras_internals import BOOKKEEPING_ATTRIBUTES

# Attributes that do not change a layer's output.
_WITHOUT_EFFECT = BOOKKEEPING_ATTRIBUTES | {
    f"{name}_{kind}"
    for name in ("kernel", "bias")
    for kind in ("initializer", "regularizer", "constraint")
}

# The same as entries of a layer's configuration.
_ENTRIES_WITHOUT_EFFECT = {name.lstrip("_") for name in _WITHOUT_EFFECT}


class LayerRecord:
    """Builds a model's layers with `changes` and remembers them as built.

    `changes` maps names of layers to changed entries of their configurations,
    as `changed_configs` returns them.
    """

    def __init__(
        self, changes: dict[str, dict[str, Any]] | None = None
    ) -> None:
        self._changes = changes or {}
        self._layers: dict[str, Any] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._attributes: dict[str, dict[str, Any]] = {}

    def add(self, layer: keras.Layer) -> keras.Layer:
        """Returns the layer with its changes applied."""
        name = layer.name
        config = self._configs[name] = _config_outside_files(layer)
        changes = self._changes.get(name)
        if changes:
            layer = type(layer).from_config({**config, **changes})
        self._layers[name] = layer
        return layer

    def finish(self) -> None:
        """Records the attributes of all layers, once they are built."""
        unknown = sorted(set(self._changes) - set(self._layers))
        if unknown:
            raise ValueError(
                "`layer_configs` must have names of layers of the model: "
                f"{', '.join(self._layers)}. Received: {', '.join(unknown)}."
            )
        self._attributes = {
            name: dict(vars(layer))
            for name, layer in self._layers.items()
            if not set(self._changes.get(name, ())) - _ENTRIES_WITHOUT_EFFECT
        }

    def changed_configs(self) -> dict[str, dict[str, Any]]:
        """Returns the entries of layers' configurations that have changed."""
        changed = {}
        for name, layer in self._layers.items():
            built = self._configs[name]
            config = _config_outside_files(layer) | dict(
                _unsaved_changes(layer)
            )
            entries = {
                key: value
                for key, value in config.items()
                if key not in built or value != built[key]
            }
            if entries:
                changed[name] = entries
        return changed

    def is_unchanged(self, names: Iterable[str] = ()) -> bool:
        """Returns whether layers compute what they did when built.

        Compares all attributes that may affect the output, also unknown ones,
        but not the values of weights. `names` defaults to all layers.
        """
        return all(
            name in self._attributes
            and _is_same(vars(self._layers[name]), self._attributes[name])
            for name in names or self._layers
        )


def _is_same(attributes: dict[str, Any], built: dict[str, Any]) -> bool:
    return all(
        name in attributes and name in built and attributes[name] is built[name]
        for name in (attributes.keys() | built.keys()) - _WITHOUT_EFFECT
    )


def _config_outside_files(layer: Any) -> dict[str, Any]:
    """Returns a configuration without the IDs that Keras adds in files."""

    def without_ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: without_ids(part)
                for key, part in value.items()
                if key != "shared_object_id"
            }
        return value

    return dict(without_ids(layer.get_config()))


def _unsaved_changes(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yields changes that take effect, but that Keras does not save.

    `layer.kernel.regularizer = ...` does not set `layer.kernel_regularizer`,
    and `layer.bias = None` does not set `layer.use_bias`.
    """
    if layer.built and getattr(layer, "bias", layer) is None:
        yield "use_bias", False
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
