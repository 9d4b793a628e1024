"""What users change about the layers of a model that is made already."""

import keras

ops = keras.ops


@keras.saving.register_keras_serializable(package="differential")
def squared_relu(x):
    return ops.square(ops.relu(x)) / 4


@keras.saving.register_keras_serializable(package="differential")
class Shrink(keras.regularizers.Regularizer):
    """A regularizer of a user's own."""

    def __call__(self, x):
        return 0.01 * ops.sum(ops.abs(x))

    def get_config(self):
        return {}


def regularize(layer, of="kernel", by=None):
    getattr(layer, of).regularizer = by or keras.regularizers.L2(1e-2)


def replace_call(layer, function):
    """Lets an instance call another function of its own call."""
    call = layer.call
    layer.call = lambda inputs, **kwargs: function(call(inputs, **kwargs))


def set_both(layer, name, value):
    """Sets an attribute of a layer and of its kernel, so that it is saved."""
    setattr(layer, f"kernel_{name}", value)
    setattr(layer.kernel, name, value)


def halve_kernel(layer):
    layer.kernel.assign(layer.kernel * 0.5)


def of(name, change, *args, **kwargs):
    """Returns a change of the layer of a name."""

    def changed(model):
        change(model.get_layer(name), *args, **kwargs)

    return changed


def attribute(name, **values):
    """Returns a change of attributes of the layer of a name."""

    def changed(model):
        for key, value in values.items():
            setattr(model.get_layer(name), key, value)

    return changed


def together(*changes):
    def changed(model):
        for change in changes:
            change(model)

    return changed


activations = keras.activations
L1, L2 = keras.regularizers.L1, keras.regularizers.L2
MaxNorm, NonNeg = keras.constraints.MaxNorm, keras.constraints.NonNeg

ACTIVATION = {
    "p01-c1_tanh": attribute("c1", activation=activations.tanh),
    "c3_gelu": attribute("c3", activation=activations.gelu),
    "c3_squared_relu": attribute("c3", activation=squared_relu),
    "c5_elu": attribute("c5", activation=activations.elu),
    "f6_none": attribute("f6", activation=None),
    "f6_linear": attribute("f6", activation=activations.linear),
    "f6_prelu": attribute("f6", activation=keras.layers.LeakyReLU(0.3)),
    "output_sigmoid": attribute("output", activation=activations.sigmoid),
    "all_tanh": together(
        *(
            attribute(name, activation=activations.tanh)
            for name in ("c1", "c3", "c5", "f6")
        )
    ),
}

TRAINABLE = {
    "p01-f6_frozen": attribute("f6", trainable=False),
    "c1_and_c3_frozen": together(
        attribute("c1", trainable=False), attribute("c3", trainable=False)
    ),
    "all_but_output_frozen": lambda model: [
        setattr(layer, "trainable", layer.name == "output")
        for layer in model.layers
    ],
    "model_frozen": lambda model: setattr(model, "trainable", False),
    "model_frozen_and_output_not": lambda model: [
        setattr(model, "trainable", False),
        setattr(model.get_layer("output"), "trainable", True),
    ],
    "c5_kernel_frozen": of(
        "c5", lambda layer: setattr(layer.kernel, "trainable", False)
    ),
    "c1_bias_frozen": of(
        "c1", lambda layer: setattr(layer.bias, "trainable", False)
    ),
    "s2_frozen": attribute("s2", trainable=False),
}

REGULARIZED = {
    "p01-c5_kernel": of("c5", regularize),
    "p01-c5_kernel_saved": of("c5", set_both, "regularizer", L2(1e-2)),
    "c1_kernel": of("c1", regularize, by=L1(1e-2)),
    "c1_kernel_saved": of("c1", set_both, "regularizer", L1(1e-2)),
    "c3_kernel_attribute_only": attribute("c3", kernel_regularizer=L2(1e-2)),
    "f6_bias": of("f6", regularize, of="bias", by=L2(0.1)),
    "output_kernel_own": of("output", set_both, "regularizer", Shrink()),
    "p02-s2_activity": attribute("s2", activity_regularizer=L2(1e-3)),
    "s4_activity": attribute("s4", activity_regularizer=L1(1e-3)),
    "c1_activity": attribute("c1", activity_regularizer=L2(1e-3)),
    "p02-f6_activity": attribute("f6", activity_regularizer=L1(1e-2)),
    "flatten_activity": attribute("flatten", activity_regularizer=L2(1e-3)),
    "output_activity": attribute("output", activity_regularizer=L2(0.1)),
    "rescaling_activity": attribute("rescaling", activity_regularizer=L2(1e-3)),
    "pad_to_32_activity": attribute("pad_to_32", activity_regularizer=L2(1e-8)),
    "c5_activity_own": attribute("c5", activity_regularizer=Shrink()),
}

CONSTRAINED = {
    "c5_max_norm": of(
        "c5", lambda layer: setattr(layer.kernel, "constraint", MaxNorm(0.5))
    ),
    "c5_max_norm_saved": of("c5", set_both, "constraint", MaxNorm(0.5)),
    "c1_max_norm": of(
        "c1",
        lambda layer: setattr(
            layer.kernel, "constraint", MaxNorm(0.3, [0, 1, 2])
        ),
    ),
    "f6_bias_not_negative": of(
        "f6", lambda layer: setattr(layer.bias, "constraint", NonNeg())
    ),
    "c3_attribute_only": attribute("c3", kernel_constraint=MaxNorm(0.5)),
}

COMPUTED = {
    "p02-s2_average": attribute("s2", pool_mode="average"),
    "s4_average": attribute("s4", pool_mode="average"),
    "s2_padding": attribute("s2", padding="same"),
    "s2_strides": attribute("s2", strides=(1, 1)),
    "s4_pool_size": attribute("s4", pool_size=(3, 3), padding="same"),
    "c1_padding": attribute("c1", padding="same"),
    "c1_strides": attribute("c1", strides=(2, 2)),
    "c3_dilation": attribute("c3", dilation_rate=(2, 2)),
    "c3_dilation_that_fits": attribute(
        "c3", dilation_rate=(2, 2), padding="same"
    ),
    "p02-c1_call": of("c1", replace_call, lambda x: x * 0.5),
    "p02-s2_call": of("s2", replace_call, ops.tanh),
    "flatten_call": of("flatten", replace_call, lambda x: x[:, ::-1]),
    "f6_call": of("f6", replace_call, lambda x: x + 1.0),
    "output_call": of("output", replace_call, lambda x: x * 0.5),
    "pad_to_32_call": of("pad_to_32", replace_call, lambda x: x * 0.5),
    "rescaling_call": of("rescaling", replace_call, lambda x: x * 0.5),
    "rescaling_scale": attribute("rescaling", scale=1 / 128),
    "rescaling_offset": attribute("rescaling", offset=-0.5),
    "c1_without_use_bias": attribute("c1", use_bias=False),
    "f6_without_use_bias": attribute("f6", use_bias=False),
    "f6_bias_none": attribute("f6", bias=None),
    "c1_bias_none": attribute("c1", bias=None, use_bias=False),
    "c3_initializer": attribute(
        "c3", kernel_initializer=keras.initializers.HeNormal(seed=3)
    ),
    "c5_kernel_halved": of("c5", halve_kernel),
    "c1_lora": of("c1", lambda layer: layer.enable_lora(2)),
    "c3_lora": of("c3", lambda layer: layer.enable_lora(2)),
    "p02-c5_lora": of("c5", lambda layer: layer.enable_lora(4)),
    "f6_lora_alpha": of("f6", lambda layer: layer.enable_lora(3, lora_alpha=6)),
}

POLICIES = {
    "c5_bfloat16": attribute("c5", dtype_policy="mixed_bfloat16"),
    "c1_bfloat16": attribute("c1", dtype_policy="mixed_bfloat16"),
    "f6_float16": attribute("f6", dtype_policy="mixed_float16"),
    "s2_bfloat16": attribute("s2", dtype_policy="mixed_bfloat16"),
    "output_bfloat16": attribute("output", dtype_policy="mixed_bfloat16"),
}

QUANTIZED = {
    "p07-int8": lambda model: model.quantize("int8"),
    "p07-int4": lambda model: model.quantize("int4"),
    "c5_int8": of("c5", lambda layer: layer.quantize("int8")),
    "f6_int8": of("f6", lambda layer: layer.quantize("int8")),
    "c5_int8_f6_int4": together(
        of("c5", lambda layer: layer.quantize("int8")),
        of("f6", lambda layer: layer.quantize("int4")),
    ),
    "float8": lambda model: model.quantize("float8"),
    "int8_then_lora": together(
        of("c5", lambda layer: layer.quantize("int8")),
        of("c5", lambda layer: layer.enable_lora(2)),
    ),
}

# Of several kinds at once, as in the issue.
SEVERAL = {
    "p01-activation_frozen_regularized": together(
        attribute("c1", activation=activations.tanh),
        attribute("f6", trainable=False),
        of("c5", set_both, "regularizer", L2(1e-3)),
    ),
    "frozen_and_quantized": together(
        attribute("c1", trainable=False), lambda model: model.quantize("int8")
    ),
    "average_and_tanh": together(
        attribute("s2", pool_mode="average"),
        attribute("c3", activation=activations.tanh),
    ),
}

CHANGES = {
    name: change
    for family in (
        ACTIVATION,
        TRAINABLE,
        REGULARIZED,
        CONSTRAINED,
        COMPUTED,
        POLICIES,
        QUANTIZED,
        SEVERAL,
    )
    for name, change in family.items()
}


def describe(model, images):
    """Returns what is to be the same of a model and its copy or twin."""
    outputs = model(images)
    return {
        "outputs": outputs,
        "losses": sorted(float(loss) for loss in model.losses),
        "trainable": [v.path for v in model.trainable_variables],
        "weights": {v.path: v for v in model.weights},
        "layers": {
            layer.name: (
                layer.trainable,
                layer.compute_dtype,
                layer.variable_dtype,
                layer.quantization_mode,
                _config_of(layer),
            )
            for layer in model.layers
        },
    }


def _config_of(layer):
    # The twin has `ZeroPadding2D` here.
    if layer.name == "pad_to_32":
        return None
    config = layer.get_config()
    # The same data types may be said in several ways.
    del config["dtype"]
    return config
