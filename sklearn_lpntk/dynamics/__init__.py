"""How training moves predictions: one step, forgetting, difficulty, and who helps whom."""

from ._callbacks import EL2N, ForgettingEvents, LearningDifficulty, TrainingDynamics
from ._forgetting import ForgettingPrediction, predict_forgetting
from ._update import UpdatePrediction, predict_update

__all__ = [
    "EL2N",
    "ForgettingEvents",
    "ForgettingPrediction",
    "LearningDifficulty",
    "TrainingDynamics",
    "UpdatePrediction",
    "predict_forgetting",
    "predict_update",
]
