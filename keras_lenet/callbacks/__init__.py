"""Callbacks that observe a run without changing it."""

from keras_lenet.callbacks.best_model_checkpoint import BestModelCheckpoint
from keras_lenet.callbacks.held_out_evaluation import HeldOutEvaluation
from keras_lenet.callbacks.kernel_history import KernelHistory
from keras_lenet.callbacks.resumable_training import ResumableTraining
from keras_lenet.callbacks.sample_predictions import SamplePredictions

__all__ = [
    "BestModelCheckpoint",
    "HeldOutEvaluation",
    "KernelHistory",
    "ResumableTraining",
    "SamplePredictions",
]
