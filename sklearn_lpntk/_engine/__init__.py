"""Empirical tangent kernels of torch networks, operation by operation.

Torch only: nothing here knows scikit-learn or skorch. Read in this order:

``objectives``   which scalars of the logits a sample stands for, with ``cotangents``,
``samples``      of which sample each row of a tensor is: labels,
``following``    how operations keep labels up, with ``picking`` for those that take an index,
``compositions`` fused operations as others that have rules,
``capture``      the operations that parameters take part in, and their edges in the graph,
``rules``        what an operation's calls add to a per-sample gradient,
``blocks``       from calls to factors of parameters,
``autograd``     the slow, obviously right rule for every other parameter,
``factors``      how a per-sample gradient is stored and multiplied, by ``products``,
``forms``        which of its forms a factor takes,
``plan``         what a run rests on, and the loop that tries again,
``trace``        one batch,
``check``        the self-check,
``extract``      a whole run; it gives ``features``, the factors of all samples,
``sources``      features that are not all in memory,
``kernel``       the lazy kernel matrix,
``bounds``       what its entries can be at most, from a few landmarks,
``reductions``   what is read off it, with ``relations`` and ``rows``,
``sketch``       features in a few thousand numbers,
``store``        features in a folder of ``shards``; ``gather`` decides where they go,
``directional``  what a change of the parameters does to the logits.

Beside them: ``inputs`` (data on its way in), ``names`` (what torch calls operations), ``session``
(the network borrowed and given back), ``parameters`` (which count, and what is refused),
``evaluate`` (forward passes only), ``task`` (calls that may run in another process).
"""
