"""Experiment trackers: what `fit` reports, in files or in a tracking tool."""

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.trackers.csv_tracker import CSVTracker
from keras_lenet.trackers.mlflow_tracker import MLflowTracker
from keras_lenet.trackers.registry import TRACKERS
from keras_lenet.trackers.tensorboard_tracker import TensorBoardTracker
from keras_lenet.trackers.trackio_tracker import TrackioTracker
from keras_lenet.trackers.wandb_tracker import WandbTracker

__all__ = [
    "TRACKERS",
    "CSVTracker",
    "MLflowTracker",
    "TensorBoardTracker",
    "Tracker",
    "TrackioTracker",
    "WandbTracker",
]
