"""Callbacks: Keras' own, users' own, and those of this package."""

import csv

import keras
import numpy as np
import pytest

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    ResumableTraining,
    SamplePredictions,
)
from keras_lenet.datasets.pipeline import dataset_from_arrays
from tests.differential.twin import (
    SharedPair,
    compare,
    compile_plainly,
    make_data,
    run,
    table,
)
from tests.helpers import BACKEND

callbacks = keras.callbacks
shared = SharedPair(compile_plainly)


def fit(model, data, *given, **arguments):
    arguments = {
        "batch_size": 8,
        "shuffle": False,
        "verbose": 0,
        "epochs": 3,
        "validation_data": data.validation,
        **arguments,
    }
    return model.fit(data.x, data.y, callbacks=list(given), **arguments)


class Hooks(callbacks.Callback):
    """Notes every hook with its logs."""

    def __init__(self):
        super().__init__()
        self.seen = []


def _hook(name):
    def hook(self, *arguments, logs=None):
        # Hooks of epochs and batches have a number, then the logs.
        *numbers, logs = (*arguments, logs) if logs else arguments
        self.seen.append((name, numbers, dict(logs or {})))

    return hook


for _name in ("train", "epoch", "train_batch", "test", "test_batch"):
    for _end in ("begin", "end"):
        setattr(Hooks, f"on_{_name}_{_end}", _hook(f"{_name}_{_end}"))


class Summary(callbacks.Callback):
    """Notes what hooks of epochs say, so that executions may have steps."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(("begin", epoch, dict(logs or {})))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(
            ("end", epoch, dict(logs), dict(self.params), self.model.name)
        )


def noted(make):
    def scenario(model, data):
        callback = make()
        return fit(model, data, callback), callback.seen

    return scenario


@pytest.mark.parametrize("make", [Hooks, Summary])
def test_hooks_come_in_the_same_order_with_the_same_logs(make):
    compare(noted(make), shared)


def test_hooks_of_evaluate_and_predict_come_in_the_same_order():
    def scenario(model, data):
        hooks = Hooks()
        model.evaluate(
            data.x, data.y, batch_size=8, callbacks=[hooks], verbose=0
        )
        return hooks.seen

    compare(scenario, shared)


BATCH_HOOKS = {
    "on_train_batch_end": {"on_train_batch_end": None},
    "on_train_batch_begin": {"on_train_batch_begin": None},
    "on_epoch_end": {"on_epoch_end": None},
}


@pytest.mark.parametrize("names", table(BATCH_HOOKS))
def test_lambda_callbacks(names):
    def scenario(model, data):
        seen = []
        callback = callbacks.LambdaCallback(
            **{
                name: lambda *arguments, name=name: seen.append(
                    [name, *map(str, arguments[:1])]
                )
                for name in names
            }
        )
        return fit(model, data, callback), seen

    compare(scenario, shared)


class ReplacedHook(callbacks.Callback):
    """Gets its hook of batches only as training begins."""

    def on_train_begin(self, logs=None):
        self.seen = []
        self.on_train_batch_end = lambda batch, logs=None: self.seen.append(
            batch
        )


class OldHooks(callbacks.Callback):
    """Has hooks by their old names."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_batch_begin(self, batch, logs=None):
        self.seen.append(("begin", batch))

    def on_batch_end(self, batch, logs=None):
        self.seen.append(("end", batch, dict(logs)))


class Halving(callbacks.Callback):
    """Changes the learning rate at every batch."""

    seen = ()

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.05 / (1 + batch)


class HalvingEpochs(callbacks.Callback):
    seen = ()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.05 / (1 + epoch)


class ChangingWeights(callbacks.Callback):
    seen = ()

    def on_epoch_end(self, epoch, logs=None):
        layer = self.model.get_layer("c5")
        layer.kernel.assign(layer.kernel * 0.9)


class ChangingWeightsAtBatches(callbacks.Callback):
    seen = ()

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.get_layer("f6")
        layer.kernel.assign(layer.kernel * 0.99)


class SettingWeights(callbacks.Callback):
    seen = ()

    def on_train_begin(self, logs=None):
        self.start = self.model.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights(self.start)


class StoppingAtBatch(callbacks.Callback):
    seen = ()

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


class StoppingAtEpoch(callbacks.Callback):
    seen = ()

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


class StoppingAtStart(callbacks.Callback):
    seen = ()

    def on_train_batch_begin(self, batch, logs=None):
        self.model.stop_training = True


class Evaluating(callbacks.Callback):
    """Uses the model in the middle of a run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        x = np.full((8, 28, 28, 1), 50 + epoch, "uint8")
        self.seen += [
            self.model.evaluate(x, np.arange(8), verbose=0),
            self.model.predict(x, verbose=0),
            self.model.predict_on_batch(x),
        ]


class ChangingLogs(callbacks.Callback):
    seen = ()

    def on_epoch_end(self, epoch, logs=None):
        logs["mine"] = epoch * 2.0


class Raising(callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("no more")


class RaisingStopIteration(callbacks.Callback):
    seen = ()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise StopIteration


OWN = {
    "replaced_hook": ReplacedHook,
    "old_hooks": OldHooks,
    "rate_of_batches": Halving,
    "rate_of_epochs": HalvingEpochs,
    "weights_of_epochs": ChangingWeights,
    "weights_of_batches": ChangingWeightsAtBatches,
    "set_weights": SettingWeights,
    "stop_at_batch": StoppingAtBatch,
    "stop_at_epoch": StoppingAtEpoch,
    "stop_at_start": StoppingAtStart,
    "evaluating": Evaluating,
    "changing_logs": ChangingLogs,
    "raising": Raising,
    "raising_stop_iteration": RaisingStopIteration,
}


@pytest.mark.parametrize("make", table(OWN))
def test_callbacks_of_the_users_own(make):
    # Several steps may have been compiled into one execution by then.
    is_late = make is ReplacedHook and BACKEND != "torch"
    refusal = "hooks on batches when `fit` begins" if is_late else None
    compare(noted(make), shared, refusal)


class Freezing(callbacks.Callback):
    seen = ()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.get_layer("c1").trainable = False


class Recompiling(callbacks.Callback):
    seen = ()

    def on_train_end(self, logs=None):
        compile_plainly(self.model, optimizer="sgd", metrics=["mae"])


class ChangingActivation(callbacks.Callback):
    """Which plain Keras takes up where it traces again."""

    seen = ()

    def on_train_begin(self, logs=None):
        layer = self.model.get_layer("f6")
        layer.activation = keras.activations.tanh


CHANGING = {
    "freezing": Freezing,
    "recompiling": Recompiling,
    "changing_activation": ChangingActivation,
}


@pytest.mark.parametrize("make", table(CHANGING))
def test_callbacks_that_change_the_model(make):
    def scenario(model, data):
        compile_plainly(model)
        return noted(make)(model, data), fit(model, data, epochs=1)

    compare(scenario, eager_twin=False)


OF_KERAS = {
    "early_stopping": lambda: callbacks.EarlyStopping(
        "val_loss", patience=0, min_delta=10.0
    ),
    "early_stopping_restoring": lambda: callbacks.EarlyStopping(
        "val_loss", patience=1, min_delta=10.0, restore_best_weights=True
    ),
    "early_stopping_of_what_is_not_there": lambda: callbacks.EarlyStopping(
        "val_acc", mode="max"
    ),
    "early_stopping_baseline": lambda: callbacks.EarlyStopping(
        "loss", baseline=0.1, patience=1
    ),
    "reduce_rate": lambda: callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=10.0
    ),
    "rate_scheduler": lambda: callbacks.LearningRateScheduler(
        lambda epoch, rate: rate * 0.5
    ),
    "terminate_on_nan": callbacks.TerminateOnNaN,
    "progress_bar": callbacks.ProgbarLogger,
    "history": callbacks.History,
    "remote": callbacks.Callback,
}


@pytest.mark.parametrize("make", table(OF_KERAS))
def test_callbacks_of_keras(make):
    def scenario(model, data):
        return (
            fit(model, data, make()),
            float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            model.stop_training,
        )

    compare(scenario, shared)


def test_terminate_on_nan_ends_at_the_same_batch():
    def scenario(model, data):
        compile_plainly(model, loss=lambda y_true, y_pred: y_pred[:, 0] / 0.0)
        hooks = Hooks()
        fit(
            model,
            data,
            callbacks.TerminateOnNaN(),
            hooks,
            validation_data=None,
        )
        return [(name, numbers) for name, numbers, _ in hooks.seen]

    compare(scenario, state=False)


def test_swapping_in_averaged_weights():
    def scenario(model, data):
        compile_plainly(
            model,
            optimizer=keras.optimizers.SGD(
                0.05, use_ema=True, ema_momentum=0.5
            ),
        )
        return fit(
            model,
            data,
            callbacks.SwapEMAWeights(swap_on_epoch=True),
            epochs=2,
        )

    compare(scenario)


def rows(path):
    with path.open() as file:
        return [
            {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def test_logging_to_csv(tmp_path):
    def scenario(model, data):
        path = tmp_path / f"{type(model).__name__}.csv"
        fit(model, data, callbacks.CSVLogger(path))
        fit(model, data, callbacks.CSVLogger(path, append=True), epochs=1)
        return rows(path)

    compare(scenario, shared)


CHECKPOINTS = {
    "every_epoch": ("{epoch}.keras", {}),
    "weights": ("{epoch}.weights.h5", {"save_weights_only": True}),
    "best": (
        "best.keras",
        {"save_best_only": True, "monitor": "val_loss"},
    ),
    "best_of_what_is_not_there": (
        "best.keras",
        {"save_best_only": True, "monitor": "val_acc", "mode": "max"},
    ),
    "every_2_batches": ("{epoch}-{batch}.keras", {"save_freq": 2}),
    "with_logs": ("{epoch}-{val_loss:.3f}.keras", {}),
    "initial_threshold": (
        "best.keras",
        {
            "save_best_only": True,
            "monitor": "loss",
            "initial_value_threshold": 0.1,
        },
    ),
}


@pytest.mark.parametrize(("name", "arguments"), table(CHECKPOINTS))
def test_checkpoints(name, arguments, tmp_path):
    def scenario(model, data):
        folder = tmp_path / type(model).__name__
        folder.mkdir()
        callback = callbacks.ModelCheckpoint(folder / name, **arguments)
        history = fit(model, data, callback, epochs=2)
        files = sorted(file.name for file in folder.iterdir())
        restored = [
            keras.saving.load_model(folder / file).get_weights()
            for file in files
            if file.endswith(".keras")
        ]
        return history, files, restored

    compare(scenario, shared)


def test_backing_up_and_restoring(tmp_path):
    def scenario(model, data):
        folder = tmp_path / type(model).__name__
        hooks = Hooks()
        try:
            fit(model, data, callbacks.BackupAndRestore(folder), Raising())
        except RuntimeError:
            fit(model, data, callbacks.BackupAndRestore(folder), hooks)
        return hooks.seen

    compare(scenario, shared)


# Those of this package leave the run as it is: compared with a plain run
# without them.
OURS = {
    "held_out": lambda d, path: HeldOutEvaluation(d.validation, freq=2),
    "held_out_every_step": lambda d, path: HeldOutEvaluation(
        d.validation, freq=1, at_start=True, at_end=True
    ),
    "held_out_every_epoch": lambda d, path: HeldOutEvaluation(
        d.validation, freq="epoch"
    ),
    "held_out_sampled": lambda d, path: HeldOutEvaluation(
        d.validation, freq=2, sample_size=4, seed=3
    ),
    "predictions": lambda d, path: SamplePredictions(
        d.x_val[:4], d.y_val[:4], freq=2, filepath=path / "{step}.png"
    ),
    "best": lambda d, path: BestModelCheckpoint(
        path / "best.keras", monitor="val_loss"
    ),
}


@pytest.mark.parametrize("make", table(OURS))
def test_callbacks_of_this_package_leave_the_run_as_it_is(make, tmp_path):
    def scenario(model, data):
        given = []
        if type(model).__name__ == "LeNet5":
            given = [make(data, tmp_path)]
        return fit(model, data, *given, epochs=2)

    compare(scenario, shared)


def test_held_out_evaluation_gives_what_evaluate_gives():
    def scenario(model, data):
        if type(model).__name__ == "LeNet5":
            held_out = HeldOutEvaluation(data.validation, freq="epoch")
            fit(model, data, held_out, validation_data=None)
            history = held_out.history
        else:
            history = fit(model, data).history
        return {
            name: history[name]
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
        }

    compare(scenario, shared)


def test_resumable_training_leaves_the_run_as_it_is(tmp_path):
    pytest.importorskip("tensorflow")

    def scenario(model, data):
        dataset = dataset_from_arrays((data.x, data.y), 8, 0, False)
        given = []
        if type(model).__name__ == "LeNet5":
            given = [ResumableTraining(tmp_path / "run.npz")]
        return model.fit(dataset, epochs=2, verbose=0, callbacks=given)

    compare(scenario, shared)


# Point 6: what plain Keras' `ModelCheckpoint` warns of, ours must not pass
# over.
MISNAMED = {
    "p06-unknown_monitor": lambda d, path: [
        BestModelCheckpoint(path / "b.keras", "val_acc", mode="max")
    ],
    "p06-before_the_evaluation": lambda d, path: [
        BestModelCheckpoint(path / "c.keras"),
        HeldOutEvaluation(d.validation, "epoch"),
    ],
}


@pytest.mark.parametrize("make", table(MISNAMED))
def test_a_checkpoint_that_finds_no_value_says_so(make, tmp_path):
    ours, _ = shared.reset()
    validation = {}

    def scenario(model, data):
        given = make(data, tmp_path)
        if len(given) > 1:
            validation["validation_data"] = None
        return fit(model, data, *given, epochs=2, **validation)

    outcome = run(scenario, ours, make_data())
    if outcome.error is not None:
        assert isinstance(outcome.error, ValueError), outcome.error
        assert "monitor" in str(outcome.error)
    else:
        written = list(tmp_path.glob("*.keras"))
        said = any("best model" in message for message in outcome.warnings)
        assert written or said, "no file, no word"
