"""Layer-wise empirical tangent kernels of torch modules.

Torch only: nothing here knows scikit-learn or skorch. Read in this order:

``cotangents``  which scalar of the logits a sample stands for,
``capture``     inputs and output gradients of every layer call, by gradient edges,
``rules``       a layer's call turned into a factor of the per-sample gradient,
``autograd``    the slow, obviously right rule for every other parameter,
``factors``     how a per-sample gradient is stored and multiplied,
``extract``     batches, the self-check and the plan they settle on,
``operator``    the lazy kernel matrix, ``reductions`` what is read off it.
"""
