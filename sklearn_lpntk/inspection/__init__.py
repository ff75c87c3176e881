"""Pictures of samples and their relations, in the manner of scikit-learn's Displays.

``from_estimator`` computes what is drawn, ``from_predictions`` takes it, ``plot(ax=None)`` draws it
again. matplotlib is imported when something is drawn.
"""

from ._clusters import ClusterSizeDisplay
from ._difficulty import DifficultyDisplay
from ._forgetting import ForgettingDisplay
from ._interaction import LabelInteractionDisplay
from ._labels import ErrorPathDisplay, FlippedLabelsDisplay
from ._language import ResponseDynamicsDisplay, TokenInfluenceDisplay
from ._linearized import GCVDisplay, SpectrumDisplay
from ._pairs import SamplePairsDisplay
from ._pruning import PruningCurveDisplay
from ._queries import QueryCurveDisplay
from ._relations import RelationsDisplay

__all__ = [
    "ClusterSizeDisplay",
    "DifficultyDisplay",
    "ErrorPathDisplay",
    "FlippedLabelsDisplay",
    "ForgettingDisplay",
    "GCVDisplay",
    "LabelInteractionDisplay",
    "PruningCurveDisplay",
    "QueryCurveDisplay",
    "RelationsDisplay",
    "ResponseDynamicsDisplay",
    "SamplePairsDisplay",
    "SpectrumDisplay",
    "TokenInfluenceDisplay",
]
