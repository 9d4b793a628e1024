import types

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5
from keras_lenet.models import batch_stacks, multi_step, twins
from keras_lenet.models.fused_forward import forward, on_cpu
from keras_lenet.models.steps_per_execution import choose_steps
from tests.helpers import BACKEND, needs_tensorflow, since_keras
from tests.models.helpers import assert_close, plain_copy, random_data


class SeesBatches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


def compiled(count, optimizer="sgd", **options):
    """Returns a compiled model with images and labels for it."""
    model = LeNet5()
    images, labels = random_data(np.random.default_rng(98), count, model)
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model, images, labels


def compile_for_gradients(model):
    """Compiles a model so that a step changes its weights by the gradient."""
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")


def weights_after_a_step(model, images, labels):
    compile_for_gradients(model)
    model.fit(images, labels, batch_size=len(images), verbose=0)
    return model.get_weights()


CONFIGURATIONS = [
    {},
    {"input_shape": (17, 30, 3), "num_classes": 4},
    {"include_preprocessing": False},
]


@pytest.mark.parametrize("arguments", CONFIGURATIONS)
@pytest.mark.parametrize(
    ("count", "training"), [(1, True), (258, True), (257, False), (258, False)]
)
def test_fused_forward_computes_what_keras_layers_compute(
    arguments, count, training
):
    model = LeNet5(**arguments)
    images, _ = random_data(np.random.default_rng(98), count, model)
    expected = plain_copy(model)(images)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(forward(model, images, training)),
        keras.ops.convert_to_numpy(expected),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("arguments", CONFIGURATIONS)
def test_gradients_are_those_of_keras_layers(arguments, generator):
    model = LeNet5(**arguments)
    start = model.get_weights()
    models = (model, plain_copy(model))
    for each in models:
        compile_for_gradients(each)
    alike = []
    for _ in range(4):
        images, labels = random_data(generator, 9, model)
        found = []
        for each in models:
            each.set_weights(start)
            each.fit(images, labels, batch_size=9, verbose=0)
            found.append(each.get_weights())
        alike.append(
            all(
                np.allclose(one, other, rtol=0, atol=1e-5)
                for one, other in zip(*found, strict=True)
            )
        )
    # Rounding may change which of two nearly equal sums is the maximum.
    assert sum(alike) >= 3


def test_equal_maxima_do_not_share_the_gradient():
    generator = np.random.default_rng(98)
    model = LeNet5(include_preprocessing=False)
    # Multiples of 1/4 make many sums equal.
    model.set_weights(
        [
            generator.integers(-1, 2, w.shape).astype("float32") / 4
            if w.ndim == 4
            else w
            for w in model.get_weights()
        ]
    )
    other = plain_copy(model)
    images, labels = random_data(generator, 9, model)
    images = np.rint(images)
    assert_close(
        weights_after_a_step(model, images, labels),
        weights_after_a_step(other, images, labels),
        1e-4,
    )


def test_fused_forward_propagates_nan():
    model = LeNet5(include_preprocessing=False)
    images, _ = random_data(np.random.default_rng(98), 2, model)
    images[1, 16, 17] = np.nan
    outputs = keras.ops.convert_to_numpy(forward(model, images))
    assert np.isfinite(outputs[0]).all()
    assert np.isnan(outputs[1]).all()


def test_weights_do_not_depend_on_the_steps_per_execution():
    model = LeNet5()
    images, labels = random_data(np.random.default_rng(98), 70, model)
    first = model.get_weights()
    results = []
    for callbacks in (
        [],
        [SeesBatches()],
        [HeldOutEvaluation((images, labels), freq=2)],
    ):
        keras.utils.set_random_seed(98)
        model = LeNet5()
        model.set_weights(first)
        model.compile("adam", "sparse_categorical_crossentropy")
        history = model.fit(
            images,
            labels,
            batch_size=8,
            epochs=2,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
        results.append((history.history["loss"], model.get_weights()))
    for loss, weights in results[1:]:
        assert loss == results[0][0]
        assert_close(weights, results[0][1], 0)


def stacks(batches, **model):
    model = types.SimpleNamespace(_batch_size=None, **model)
    return list(batch_stacks.stack_batches(twins.Twin(model), model, batches))


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch stacks nothing")
def test_a_single_batch_is_stacked_twice():
    batch = (np.full((3, 2), 7), np.arange(3))
    (((images, labels), rows, count),) = stacks([batch], steps_per_execution=1)
    assert count == 1
    np.testing.assert_array_equal(images[0], batch[0])
    assert len(images) == len(labels) == len(rows) == 2
    assert rows[0] == 3


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch stacks nothing")
def test_the_size_of_a_stack_is_limited(monkeypatch):
    monkeypatch.setattr(batch_stacks, "_MAX_STACK_BYTES", 100)
    batches = [(np.zeros((3, 3), dtype),) for dtype in 5 * ["uint8"]]
    # 11 batches of 9 bytes fit.
    ((_, _, count),) = stacks(batches, steps_per_execution=9)
    assert count == 5
    batches = [(np.zeros((3, 3), "float32"),) for _ in range(5)]
    # 2 batches of 36 bytes fit.
    counts = [c for _, _, c in stacks(batches, steps_per_execution=9)]
    assert counts == [2, 2, 1]


@pytest.mark.parametrize("steps", [1] if BACKEND == "torch" else [1, 4])
def test_every_batch_is_used_once_including_a_smaller_last_one(steps):
    model, images, labels = compiled(
        43,
        keras.optimizers.SGD(0.0),
        metrics=["accuracy"],
        steps_per_execution=steps,
    )
    history = model.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 12
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert history.history["loss"] == pytest.approx([loss] * 2, abs=1e-5)
    assert history.history["accuracy"] == pytest.approx([accuracy] * 2)
    assert model.steps_per_execution == steps


def test_callbacks_with_batch_hooks_see_every_batch():
    model, images, labels = compiled(43)
    callback = SeesBatches()
    model.fit(images, labels, batch_size=8, callbacks=[callback], verbose=0)
    assert callback.batches == [0, 1, 2, 3, 4, 5]


def test_sample_weights_are_applied():
    model = LeNet5()
    other = plain_copy(model)
    generator = np.random.default_rng(98)
    images, labels = random_data(generator, 16, model)
    weights = generator.random(16)
    results = []
    for each in (model, other):
        each.compile("sgd", "sparse_categorical_crossentropy")
        history = each.fit(
            images,
            labels,
            sample_weight=weights,
            batch_size=8,
            shuffle=False,
            verbose=0,
        )
        results.append(history.history["loss"])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_validation_and_a_later_evaluate_use_all_images():
    model, images, labels = compiled(43)
    history = model.fit(
        images,
        labels,
        batch_size=8,
        validation_data=(images, labels),
        verbose=0,
    )
    loss = model.evaluate(images, labels, batch_size=8, verbose=0)
    assert history.history["val_loss"] == pytest.approx([loss], abs=1e-5)


def test_evaluations_run_exactly_the_requested_steps():
    model, images, labels = compiled(48)
    results = []
    evaluate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: results.append(
            model.evaluate(images, labels, batch_size=8, steps=3, verbose=0)
        )
    )
    history = model.fit(
        images,
        labels,
        batch_size=8,
        validation_data=(images, labels),
        validation_steps=3,
        callbacks=[evaluate],
        verbose=0,
    )
    expected = model.evaluate(images[:24], labels[:24], verbose=0)
    assert results == [pytest.approx(expected, abs=1e-5)]
    assert history.history["val_loss"] == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras' layers warn there")
@pytest.mark.parametrize("wrap", [lambda x: {"images": x}, lambda x: [x]])
def test_images_in_a_dict_or_list_are_accepted(wrap):
    model, images, labels = compiled(8, keras.optimizers.SGD(0.0))
    history = model.fit(wrap(images), labels, verbose=0)
    expected = model.evaluate(images, labels, verbose=0)
    assert history.history["loss"] == [pytest.approx(expected, abs=1e-5)]


@since_keras((3, 13), "fails on JAX if a batch contains `None`")
def test_a_generator_may_yield_none_as_sample_weights():
    model, images, labels = compiled(8, keras.optimizers.SGD(0.0))
    history = model.fit(
        ((images, labels, None) for _ in range(2)),
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
    )
    expected = model.evaluate(images, labels, verbose=0)
    assert history.history["loss"] == [pytest.approx(expected, abs=1e-5)]


def test_a_compile_in_a_callback_takes_effect():
    model, images, labels = compiled(8)
    model.evaluate(images, labels, verbose=0)
    again = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: model.compile(
            "sgd", lambda y_true, y_pred: keras.ops.sum(y_pred, -1) * 7
        )
    )
    model.fit(images, labels, callbacks=[again], verbose=0)
    loss = model.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(7.0, abs=1e-4)


def test_a_custom_train_step_is_used():
    class Mine(LeNet5):
        def train_step(self, *arguments):
            steps.append(arguments)
            return super().train_step(*arguments)

    steps = []
    model = Mine()
    images, labels = random_data(np.random.default_rng(98), 8, model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, labels, verbose=0)
    assert steps


def test_a_regularizer_added_to_a_layer_takes_effect():
    model, images, labels = compiled(8, keras.optimizers.SGD(0.0))
    before = model.fit(images, labels, verbose=0).history["loss"][0]
    model.get_layer("f6").activity_regularizer = keras.regularizers.L1(100.0)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    after = model.fit(images, labels, verbose=0).history["loss"][0]
    assert after > before + 1


ENDLESS = types.SimpleNamespace(cardinality=lambda: -1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 32),
        ({"x": np.ones((640, 1)), "batch_size": 10}, 32),
        ({"x": np.ones((650, 1)), "batch_size": 10}, 22),
        ({"x": np.ones((640, 1))}, 20),
        ({"x": ENDLESS, "steps_per_epoch": 300}, 30),
        ({"x": ENDLESS, "steps_per_epoch": 37}, 1),
        (
            {"x": ENDLESS, "steps_per_epoch": 300, "validation_steps": 40},
            20,
        ),
        # The data may run out inside an epoch.
        ({"x": iter(()), "steps_per_epoch": 300}, 1),
        (
            {"x": np.ones((1000, 1)), "batch_size": 10, "steps_per_epoch": 30},
            10,
        ),
        ({"callbacks": [keras.callbacks.History()]}, 32),
        ({"callbacks": [keras.callbacks.EarlyStopping()]}, 32),
        ({"callbacks": [keras.callbacks.ModelCheckpoint("m.keras")]}, 32),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, 1),
        ({"callbacks": SeesBatches()}, 1),
        (
            {
                "callbacks": keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: None
                )
            },
            1,
        ),
        ({"callbacks": [keras.callbacks.CallbackList()]}, 1),
        ({"x": ENDLESS, "callbacks": ["freq 10"], "steps_per_epoch": 15}, 5),
        ({"callbacks": ["freq 10"], "x": np.ones((400, 1))}, 1),
        (
            {
                "callbacks": ["freq 10"],
                "x": np.ones((400, 1)),
                "batch_size": 20,
            },
            10,
        ),
        (
            {
                "callbacks": ["freq 10"],
                "x": np.ones((400, 1)),
                "batch_size": 20,
                "validation_split": 0.3,
            },
            2,
        ),
        ({"callbacks": ["freq 10"], "x": iter(())}, 1),
        ({"callbacks": ["freq epoch"]}, 32),
    ],
)
def test_callbacks_and_epochs_limit_the_steps_per_execution(
    arguments, expected
):
    held_out = {
        f"freq {freq}": HeldOutEvaluation(
            (np.ones((1, 28, 28, 1)), np.ones(1)), freq=freq
        )
        for freq in (10, "epoch")
    }
    if isinstance(arguments.get("callbacks"), list):
        arguments = {
            **arguments,
            "callbacks": [
                held_out.get(c, c) if isinstance(c, str) else c
                for c in arguments["callbacks"]
            ],
        }
    assert choose_steps(**arguments) == expected


@needs_tensorflow
def test_the_cardinality_of_a_dataset_limits_the_steps():
    import tensorflow as tf

    held_out = HeldOutEvaluation((np.ones((1, 28, 28, 1)), np.ones(1)), freq=10)
    dataset = tf.data.Dataset.range(25)
    assert choose_steps(dataset, callbacks=[held_out]) == 5
    assert choose_steps(dataset.repeat(), callbacks=[held_out]) == 1
    assert (
        choose_steps(dataset.filter(lambda x: x > 3), callbacks=[held_out]) == 1
    )


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch does not compile")
def test_models_train_compiled_on_a_cpu():
    if not on_cpu():
        pytest.skip("about the CPU")
    model = LeNet5()
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.trains_compiled()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    assert not model.trains_compiled()
    model = LeNet5(dtype="mixed_bfloat16")
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert not model.trains_compiled()


@pytest.mark.skipif(BACKEND != "jax", reason="about GPUs with JAX")
def test_large_batches_use_keras_loop_on_a_gpu(monkeypatch):
    monkeypatch.setattr(multi_step, "on_cpu", lambda: False)
    model, images, labels = compiled(260, keras.optimizers.SGD(0.01))
    plain = plain_copy(model)
    plain.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    modules = []
    for size in (64, 260, 64):
        for each in (model, plain):
            each.fit(images, labels, size, shuffle=False, verbose=0)
        modules.append(model.train_function.__module__)
        assert_close(model.get_weights(), plain.get_weights())
    programs = "keras_lenet.models.jax_programs"
    assert [module == programs for module in modules] == [True, False, True]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about XLA on TensorFlow")
class TestFallback:
    """Keras' loop trains what XLA cannot run, with one warning."""

    def histories(self, make, **arguments):
        """Returns the histories of a `LeNet5` and of a plain Keras model."""
        images, labels = random_data(np.random.default_rng(98), 24)
        start = LeNet5().get_weights()
        found = []
        for define in (lambda model: model, plain_copy):
            keras.utils.set_random_seed(98)
            model = define(LeNet5())
            model.set_weights(start)
            loss, metrics = make()
            model.compile(
                keras.optimizers.SGD(0.01), loss, metrics=metrics, **arguments
            )
            history = model.fit(
                images, labels, 8, epochs=2, shuffle=False, verbose=0
            )
            found.append(history.history)
        return found

    @staticmethod
    def with_numpy():
        import tensorflow as tf

        def hits(y_true, y_pred):
            share = tf.numpy_function(
                lambda a, b: np.float32((a.ravel() == b.argmax(1)).mean()),
                [y_true, y_pred],
                tf.float32,
            )
            return tf.ensure_shape(share, ())

        return "sparse_categorical_crossentropy", [hits]

    @staticmethod
    def with_random_numbers():
        seeds = keras.random.SeedGenerator(98)

        def noisy(y_true, y_pred):
            loss = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
            return loss + keras.random.uniform((8,), seed=seeds)

        return noisy, []

    @staticmethod
    def with_an_unknown_operation():
        import tensorflow as tf

        def classes(y_true, y_pred):
            text = tf.strings.as_string(tf.argmax(y_pred, axis=-1))
            return tf.strings.length(text) + tf.size(tf.unique(text)[0])

        return "sparse_categorical_crossentropy", [classes]

    @pytest.mark.parametrize(
        "make",
        ["with_numpy", "with_random_numbers", "with_an_unknown_operation"],
    )
    def test_unsupported_operations_fall_back_with_one_warning(
        self, make, caplog
    ):
        ours, plain = self.histories(getattr(self, make))
        assert ours.keys() == plain.keys()
        for name, values in plain.items():
            assert ours[name] == pytest.approx(values, rel=1e-5)
        notes = [
            r
            for r in caplog.records
            if r.name == "keras_lenet.models.tensorflow_programs"
        ]
        assert len(notes) == 1
        assert "XLA does not run all of 'lenet5'" in notes[0].getMessage()

    def test_jit_compile_false_disables_compiled_training(self, caplog):
        ours, plain = self.histories(self.with_numpy, jit_compile=False)
        assert ours["hits"] == pytest.approx(plain["hits"])
        assert "XLA" not in caplog.text

    def test_run_functions_eagerly_disables_compiled_training(self):
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        try:
            model = LeNet5()
            model.compile("sgd", "sparse_categorical_crossentropy")
            assert not model.trains_compiled()
        finally:
            tf.config.run_functions_eagerly(False)

    def test_the_jit_compile_argument_is_saved(self, tmp_path):
        for asked in ("auto", False):
            model = LeNet5()
            model.compile(
                "sgd", "sparse_categorical_crossentropy", jit_compile=asked
            )
            model.save(tmp_path / "m.keras")
            loaded = keras.saving.load_model(tmp_path / "m.keras")
            assert loaded.trains_compiled() is (asked == "auto")

    def test_many_models_cause_no_retracing_warning(self, caplog):
        images, labels = random_data(np.random.default_rng(98), 8)
        for _ in range(6):
            model = LeNet5()
            model.compile("sgd", "sparse_categorical_crossentropy")
            model.fit(images, labels, 8, verbose=0)
        assert "retracing" not in caplog.text


def test_test_batch_hooks_are_called_during_validation():
    class SeesTestBatches(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append(batch)

    seen = []
    model, images, labels = compiled(24)
    model.fit(
        images,
        labels,
        8,
        validation_data=(images, labels),
        callbacks=[SeesTestBatches()],
        verbose=0,
    )
    assert seen == [0, 1, 2]


def test_a_subclass_of_our_callback_sees_every_batch():
    class Mine(HeldOutEvaluation):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            seen.append(batch)

    seen = []
    model, images, labels = compiled(24)
    callback = Mine((images, labels), freq=3)
    model.fit(images, labels, 8, callbacks=[callback], verbose=0)
    assert seen == [0, 1, 2]


@pytest.mark.skipif(BACKEND == "torch", reason="about compiled training")
def test_a_batch_hook_added_in_on_train_begin_is_rejected():
    class Late(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.on_train_batch_end = lambda batch, logs=None: None

    model, images, labels = compiled(24)
    with pytest.raises(ValueError, match=r"hooks on batches.*Late"):
        model.fit(images, labels, 8, callbacks=[Late()], verbose=0)
    assert np.isfinite(model.evaluate(images, labels, verbose=0))
