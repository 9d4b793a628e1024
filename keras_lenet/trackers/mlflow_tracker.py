"""Values and pictures of a run in MLflow."""

from typing import Any

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.types import Array


class MLflowTracker(Tracker):
    """Logs what `fit` reports to MLflow.

    It needs the package mlflow or mlflow-skinny (`pip install
    "keras-lenet[mlflow]"`). It logs to the active run, or starts and ends a
    run of its own, where `mlflow.set_tracking_uri` or `MLFLOW_TRACKING_URI`
    says.

    Args:
        experiment: String. The experiment of a new run. Defaults to
            `"keras-lenet"`.
        strict: Boolean, as for `Tracker`. Defaults to `False`.
        **kwargs: Other arguments of `mlflow.start_run`, e.g. `run_name` or
            `tags`.

    Raises:
        ImportError: If MLflow is not installed.

    Example:

    >>> from keras_lenet import HeldOutEvaluation
    >>> from keras_lenet.trackers import MLflowTracker
    >>> callbacks = [
    ...     HeldOutEvaluation((x_test, y_test), freq=100),
    ...     MLflowTracker(run_name="first"),
    ... ]  # doctest: +SKIP
    >>> model.fit(x_train, y_train, callbacks=callbacks)  # doctest: +SKIP
    """

    needs: str | None = "mlflow"

    def __init__(
        self,
        experiment: str = "keras-lenet",
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(strict)
        self.experiment = experiment
        self.kwargs = kwargs
        self._is_own = False

    def open(self) -> None:
        import mlflow

        active = mlflow.active_run()
        self._is_own = active is None
        if active is None:
            mlflow.set_experiment(self.experiment)
            resumed = {"run_id": self.run_id} if self.run_id else {}
            active = mlflow.start_run(**{**resumed, **self.kwargs})
        self.run_id = active.info.run_id

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        import mlflow

        mlflow.log_metrics(values, step=step, run_id=self.run_id)

    def log_image(self, name: str, image: Array, step: int) -> None:
        import mlflow

        client: Any = mlflow.MlflowClient()
        client.log_image(self.run_id, image, key=name, step=step)

    def close(self) -> None:
        import mlflow

        if self._is_own:
            mlflow.end_run()
