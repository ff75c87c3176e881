"""Layer-wise empirical tangent kernels of torch modules.

Torch only: nothing here knows scikit-learn or skorch. Read in this order:

``cotangents``   which scalar of the logits a sample stands for,
``capture``      inputs and output gradients of every layer call, by gradient edges,
``rules``        a layer's calls turned into a factor of the per-sample gradient,
``autograd``     the slow, obviously right rule for every other parameter,
``factors``      how a per-sample gradient is stored and multiplied,
``trace``        one batch, and the plan that a run settles on,
``check``        the self-check of every batch,
``extract``      a whole run; it gives ``features``, the factors of all samples,
``sources``      features that are not all in memory,
``operator``     the lazy kernel matrix,
``bounds``       what its entries can be at most, from a few landmarks,
``reductions``   what is read off it, with ``relations``, ``rows`` and ``screen``,
``sketch``       features in a few thousand numbers,
``store``        features in a folder of ``shards``; ``gather`` decides where they go,
``directional``  what a change of the parameters does to the logits.

Beside them: ``inputs`` (data on its way in), ``session`` (the network borrowed and given
back), ``parameters`` (which count, and what is refused), ``evaluate`` (forward passes only),
``task`` (calls that may run in another process).
"""
