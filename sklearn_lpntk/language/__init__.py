"""Learning dynamics of language models: what a step on some tokens does to others.

Everything here takes any causal module of torch; ``sklearn_lpntk.language.trl`` needs the extra
``language``.
"""

from ._hidden_rewards import nthr_advantages, nthr_scores
from ._kernel import sequence_kernel
from ._objectives import DPO
from ._selector import LanguageSelector
from ._squeezing import squeeze
from ._steps import predict_log_proba, token_influence

__all__ = [
    "DPO",
    "LanguageSelector",
    "nthr_advantages",
    "nthr_scores",
    "predict_log_proba",
    "sequence_kernel",
    "squeeze",
    "token_influence",
]
