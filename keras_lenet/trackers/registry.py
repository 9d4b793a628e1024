"""The trackers that `train` and the command line know by name."""

from collections.abc import Callable
from pathlib import Path

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.trackers.csv_tracker import CSVTracker
from keras_lenet.trackers.mlflow_tracker import MLflowTracker
from keras_lenet.trackers.tensorboard_tracker import TensorBoardTracker
from keras_lenet.trackers.trackio_tracker import TrackioTracker
from keras_lenet.trackers.wandb_tracker import WandbTracker

# Name: function of the output folder.
TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "csv": lambda folder: CSVTracker(folder / "log.csv"),
    "tensorboard": lambda folder: TensorBoardTracker(folder / "tensorboard"),
    "wandb": lambda folder: WandbTracker(dir=str(folder)),
    "mlflow": lambda folder: MLflowTracker(),
    "trackio": lambda folder: TrackioTracker(),
}
