"""How training moves predictions: one step, forgetting, difficulty, and who helps whom."""

from ._callbacks import (
    EL2N,
    AreaUnderMargin,
    ForgettingEvents,
    LearningDifficulty,
    TrainingDynamics,
)
from ._convergence import entk_convergence
from ._difficulty import difficulty_correlation
from ._forgetting import ForgettingPrediction, predict_forgetting
from ._similarity import train_test_similarity
from ._update import UpdatePrediction, predict_update

__all__ = [
    "EL2N",
    "AreaUnderMargin",
    "ForgettingEvents",
    "ForgettingPrediction",
    "LearningDifficulty",
    "TrainingDynamics",
    "UpdatePrediction",
    "difficulty_correlation",
    "entk_convergence",
    "predict_forgetting",
    "predict_update",
    "train_test_similarity",
]
