"""Rules: how operations with weights give per-sample gradients, found by the operation's name.

A rule's ``apply`` runs the operation under the recorder and notes a *use*; ``term`` of the use
turns the output's gradients into what the call adds to a weight's gradient.
"""

from .convolution import Convolution, TransposedConvolution
from .elementwise import Einsum, Elementwise, Expanded
from .embedding import Embedding, EmbeddingBag
from .linear import AddMM, Linear, MatMul
from .normalisation import Normalisation
from .terms import Entries, Matrices, Positions, Rows, Shared

FAMILIES = (
    Linear,
    MatMul,
    AddMM,
    Convolution,
    TransposedConvolution,
    Embedding,
    EmbeddingBag,
    Normalisation,
    Elementwise,
    Einsum,
    Expanded,
)

RULES = {name: rule for rule in FAMILIES for name in rule.names.split()}

__all__ = ["FAMILIES", "RULES", "Entries", "Matrices", "Positions", "Rows", "Shared"]
