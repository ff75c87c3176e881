"""What a strategy looks at, and what it finds."""

from dataclasses import dataclass, field

import numpy as np

from .._engine.inputs import is_many
from .._engine.task import Task
from .._features import extract, make_extractor, operator_of, store_path, workers_of
from .._samples.datasets import as_array
from .._samples.inputs import as_inputs
from ._stand_ins import StandIns


@dataclass
class Samples:
    """What a strategy may look at.

    Attributes
    ----------
    network : Network or None
    X : inputs of the network, or what X is for a strategy without one
    columns : ndarray of shape (n_samples,)
        Labels as logit columns.
    options : dict
        ``kernel, scope, n_clusters, n_jobs, decide_only, n_components, store, refine,
        parameters``.
    rng : numpy Generator
    sketch_seed : int
    """

    network: object
    X: object
    columns: np.ndarray
    options: dict
    rng: np.random.Generator
    sketch_seed: int = 0
    _operators: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.columns)

    @property
    def classes(self):
        """Sample indices of each class, ascending."""
        return [np.flatnonzero(self.columns == c) for c in np.unique(self.columns)]

    @property
    def groups(self):
        """Sample indices that are compared with each other."""
        whole = [np.arange(len(self))]
        return self.classes if self.options["scope"] == "class" else whole

    def vectors(self):
        """X as one array of numbers."""
        X = as_inputs(self.X)
        if is_many(X):
            raise ValueError(
                "strategy='k_center_input' compares the rows of one array, and X has several "
                "inputs; use another strategy, such as 'k_center'."
            )
        return as_array(X[:])

    def operator(self, kernel=None):
        """The lazy kernel of all samples."""
        kernel = self.options["kernel"] if kernel is None else kernel
        return self._features(kernel, self.options["n_components"], self.options["store"])

    def exact_operator(self, kernel=None):
        """The kernel without a sketch."""
        return self._features(self.options["kernel"] if kernel is None else kernel, None, None)

    def _features(self, kernel, n_components, store):
        key = id(kernel), n_components
        if key not in self._operators:
            if store is not None:
                name = kernel if isinstance(kernel, str) else "kernel"
                store = store_path(store, name)
            names = self.options.get("parameters")
            extractor = make_extractor(self.network, kernel=kernel, parameters=names)
            features = extract(
                extractor,
                self.X,
                self.columns,
                n_components,
                self.sketch_seed,
                store=store,
                n_jobs=self.options["n_jobs"],
            )
            if features.n_cotangents != 1:
                raise ValueError(
                    f"kernel={kernel!r} gives {features.n_cotangents} cotangents a sample; "
                    "pruning needs one: return an array of shape (n, K)."
                )
            self._operators[key] = operator_of(features)
        return self._operators[key]

    def reduce(self, function, operator, *args, **options):
        """A reduction over an operator, its tiles on the workers."""
        options |= workers_of(operator, n_jobs=self.options["n_jobs"])
        return function(operator.kernel, *args, **options)

    def per_class(self, function, *args, among=None):
        """``function(*args, class indices)`` for every class, on the workers.

        ``among``, a mask, narrows the classes; one that is empty then is passed over.
        """
        run = workers_of(*self._operators.values(), n_jobs=self.options["n_jobs"]).get("map", map)
        classes = self.classes if among is None else [c[among[c]] for c in self.classes]
        return list(run(Task(function, *args), [c for c in classes if len(c)]))


@dataclass
class Ordering:
    """What a strategy found; fields that it did not compute are None."""

    prune_order: np.ndarray
    redundancy: np.ndarray | None = None
    dominators: np.ndarray | None = None
    n_redundant: int | None = None
    scores: np.ndarray | None = None  # what the order was made by, where it is a number
    labels: np.ndarray | None = None
    centers: np.ndarray | None = None
    head_size: int | None = None  # samples in the largest cluster
    stand_ins: StandIns | None = None

    def n_recipe(self, head_fraction):
        """How many the paper's recipe drops: the redundant, and part of the head."""
        return (self.n_redundant or 0) + round(head_fraction * (self.head_size or 0))
