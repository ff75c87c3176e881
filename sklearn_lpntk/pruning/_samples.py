"""What a strategy looks at, and what it finds."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._engine.cotangents import require_columns
from .._engine.evaluate import logits_and_embeddings
from .._engine.inputs import is_many, take
from .._engine.task import Task
from .._features import extract, make_extractor, operator_of, store_path, workers_of
from .._gram import warn
from .._samples.datasets import as_array
from .._samples.inputs import as_inputs
from ..linearized._kernels import FEW, TangentKernel, sums_cancel
from ._stand_ins import StandIns

COMPONENTS = 1024  # of the sketch in which labels are regressed
NYSTROM_JITTER = 1e-6  # of the mean of the diagonal


@dataclass
class Samples:
    """What a strategy may look at.

    Attributes
    ----------
    X : inputs of the network, or what X is for a strategy without one
    columns : ndarray of shape (n_samples,)
        Labels as logit columns.
    classes : list of ndarray
        Rows of each class.
    rng : numpy Generator
        What random choices are to be drawn from.
    network : Network or None
        Its ``module`` is the trained module.
    logits, embeddings : ndarray of shape (n_samples, n_logits) and (n_samples, n_inputs)
        Of the trained network: outputs, at least two, and what goes into its last layer.
    rows : ndarray of int
        Which rows of the caller's X these are: all, or those of a comparison that are not held out.
    dynamics : Recorded or None
        What `TrainingDynamics` recorded of these rows while the net was trained, where it did.
    options : dict
        ``kernel, scope, n_clusters, n_jobs, decide_only, n_components, store, refine,
        parameters``.
    sketch_seed : int
    names : ndarray of shape (n_samples,)
        Labels as the caller wrote them.
    training : TrainingDynamics or None
        Of all samples.
    whole : Samples or None
        Those that these are a part of.
    """

    network: object
    X: object
    columns: np.ndarray
    options: dict
    rng: np.random.Generator
    sketch_seed: int = 0
    names: np.ndarray | None = None
    training: object = None
    whole: "Samples | None" = None
    rows: np.ndarray | None = None
    _features: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rows = np.arange(len(self.columns)) if self.rows is None else self.rows
        self.names = self.columns if self.names is None else self.names

    def part(self, rows, rng):
        """Some of the samples, which share what was computed for all."""
        return replace(
            self,
            X=take(self.X, rows),
            columns=self.columns[rows],
            names=self.names[rows],
            rng=rng,
            whole=self,
            rows=rows,
        )

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

    # -- what the samples are -------------------------------------------------------------

    def vectors(self):
        """X as one array of numbers."""
        X = as_inputs(self.X)
        if is_many(X):
            raise ValueError(
                "This strategy compares the rows of one array, and X has several inputs; use "
                "another strategy, such as 'herding' or 'k_center'."
            )
        return as_array(X[:])

    @cached_property
    def _outputs(self):
        if self.whole is not None:
            return [of_all[self.rows] for of_all in self.whole._outputs]
        logits, embeddings = logits_and_embeddings(self.network.module, self.X)
        require_columns(torch.as_tensor(self.columns), logits.shape[1])
        if logits.shape[1] == 1:  # of class 1; that of class 0 is none
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return [tensor.double().cpu().numpy() for tensor in (logits, embeddings)]

    @property
    def logits(self):
        return self._outputs[0]

    @property
    def embeddings(self):
        return self._outputs[1]

    @property
    def dynamics(self):
        return None if self.training is None else Recorded(self)

    def recorded(self, name):
        """A curve or score of `TrainingDynamics`, its last axis the samples."""
        if self.training is None:
            raise ValueError(
                "This strategy looks at how the net was trained, and of this net's training "
                "nothing was recorded: pass a skorch net that is still to be trained, or put "
                "TrainingDynamics() into its callbacks before you fit and freeze it."
            )
        values = getattr(self.training, name)
        if values.shape[-1] != len(self.whole or self):
            raise ValueError(
                f"The net's TrainingDynamics recorded {values.shape[-1]} samples, and X has "
                f"{len(self.whole or self)}: record the training on the same X, in the same order."
            )
        if np.isnan(values).all(axis=tuple(range(values.ndim - 1))).any():
            raise ValueError(
                f"TrainingDynamics has no {name} of some samples, which no epoch visited: record a "
                "net with train_split=None whose loader hands out all rows, and compare it with no "
                "strategy that holds rows out of its training, as 'clean_herding' does."
            )
        return values[..., self.rows]

    # -- kernels --------------------------------------------------------------------------

    def operator(self, kernel=None):
        """The lazy kernel of all samples."""
        return self._operator(kernel, self.options["n_components"], self.options["store"])

    def exact_operator(self, kernel=None):
        """The kernel without a sketch."""
        return self._operator(kernel)

    def _operator(self, kernel=None, n_components=None, store=None):
        if self.whole is not None:
            return self.whole._operator(kernel, n_components, store).restricted(self.rows)
        kernel = self.options["kernel"] if kernel is None else kernel
        features = self._features_of(kernel, n_components, store)
        if features.n_cotangents != 1:
            raise ValueError(
                f"kernel={kernel!r} gives {features.n_cotangents} cotangents a sample; "
                "pruning needs one: return an array of shape (n, K)."
            )
        return operator_of(features)

    def _features_of(self, kernel, n_components=None, store=None):
        key = id(kernel), n_components
        if key not in self._features:
            if store is not None:
                name = kernel if isinstance(kernel, str) else "kernel"
                store = store_path(store, name)
            self._features[key] = extract(
                self._extractor(kernel),
                self.X,
                self.columns,
                n_components,
                self.sketch_seed,
                store=store,
                n_jobs=self.options["n_jobs"],
            )
        return self._features[key]

    def _extractor(self, kernel):
        names = self.options.get("parameters")
        return make_extractor(self.network, kernel=kernel, parameters=names)

    def label_free(self):
        """Features ``phi`` of the network that know no labels, or for few samples their ``K``."""
        if self.whole is not None:
            (name, of_all), *_ = self.whole.label_free().items()
            square = np.ix_(self.rows, self.rows)
            return {name: of_all[self.rows] if name == "phi" else of_all[square]}
        extractors = [self._extractor(kernel) for kernel in ("pntk", "pntk_first")]
        kernel = "pntk"
        if sums_cancel(*extractors, take(self.X, slice(0, FEW))):
            kernel = "entk_trace"
        if len(self) <= COMPONENTS:
            return {"K": TangentKernel(self._features_of(kernel)).gram()}
        return {"phi": TangentKernel(self._features_of(kernel, COMPONENTS)).phi()}

    def label_free_by(self, kernel):
        """The same by a kernel ``(X, Y) -> K`` of the inputs: by Nyström's method for many."""
        X = self.vectors().reshape(len(self), -1).astype(np.float64)
        if len(self) <= COMPONENTS:
            return {"K": kernel(X, X)}
        landmarks = X[self.rng.choice(len(X), COMPONENTS, replace=False)]
        K = kernel(landmarks, landmarks)
        w, V = np.linalg.eigh(K)
        root = V / np.sqrt(np.maximum(w, NYSTROM_JITTER * np.trace(K) / len(K)))
        blocks = gen_batches(len(X), COMPONENTS)
        return {"phi": np.concatenate([kernel(X[rows], landmarks) @ root for rows in blocks])}

    def reduce(self, function, operator, *args, **options):
        """A reduction over an operator, its tiles on the workers."""
        options |= workers_of(operator, n_jobs=self.options["n_jobs"])
        return function(operator.kernel, *args, **options)

    def per_class(self, function, *args, among=None):
        """``function(*args, class indices)`` for every class, on the workers.

        ``among``, a mask, narrows the classes; one that is empty then is passed over.
        """
        features = (self.whole or self)._features.values()
        operators = [operator_of(f) for f in features if f.n_cotangents == 1]
        run = workers_of(*operators, n_jobs=self.options["n_jobs"]).get("map", map)
        classes = self.classes if among is None else [c[among[c]] for c in self.classes]
        return list(run(Task(function, *args), [c for c in classes if len(c)]))


class Recorded:
    """The curves and scores of `TrainingDynamics` by name, of some samples: their last axis."""

    def __init__(self, samples):
        self._samples = samples

    def __getattr__(self, name):
        if name.startswith("_") or not name.endswith("_"):
            raise AttributeError(name)
        return self._samples.recorded(name)


@dataclass
class Ordering:
    """What a strategy found; fields that it did not compute are None."""

    prune_order: np.ndarray
    redundancy: np.ndarray | None = None
    dominators: np.ndarray | None = None
    n_redundant: int | None = None
    scores: np.ndarray | None = None  # what the order was made by, where it is a number
    contradicted: np.ndarray | None = None  # mask of labels that the others contradict
    doubt: str | None = None  # what its caller is to be warned of
    labels: np.ndarray | None = None
    centers: np.ndarray | None = None
    head_size: int | None = None  # samples in the largest cluster

    def tell_doubt(self):
        if self.doubt is not None:
            warn(self.doubt)

    stand_ins: StandIns | None = None

    def n_recipe(self, head_fraction):
        """How many the paper's recipe drops: the redundant, and part of the head."""
        return (self.n_redundant or 0) + round(head_fraction * (self.head_size or 0))
