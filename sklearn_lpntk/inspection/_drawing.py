"""What all Displays share: colours that colour-blind readers tell apart, and axes."""

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

# Okabe and Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C8C8C"
COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = "osv^Dxh+P*<>"


def axes_for(ax, name, **subplots):
    """The axes given, or new ones with their figure."""
    check_matplotlib_support(f"{name}.plot")
    import matplotlib.pyplot as plt

    if ax is None:
        ax = plt.subplots(layout="constrained", **subplots)[1]
    return ax


def grid_for(ax, name, shape, *, figsize):
    """A grid of axes: those given, a single one divided, or those of a new figure."""
    check_matplotlib_support(f"{name}.plot")
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(*shape, figsize=figsize, layout="constrained", squeeze=False)[1]
    if isinstance(ax, plt.Axes):
        ax.set_axis_off()
        spec = ax.get_subplotspec()
        if spec is not None:
            return spec.subgridspec(*shape).subplots(squeeze=False)
        box = ax.get_position()  # axes that were put somewhere by hand
        edges = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        return ax.figure.add_gridspec(*shape, **edges).subplots(squeeze=False)
    axes = np.asarray(ax, dtype=object)
    if axes.size != np.prod(shape):
        raise ValueError(
            f"{name} draws a grid of {shape[0]} x {shape[1]} axes: pass one, to be divided, or "
            f"{np.prod(shape)} of them; got {axes.size}."
        )
    return axes.reshape(shape)


def vector(values, name, n=None):
    """A one-dimensional array of n numbers."""
    values = np.asarray(values)
    if values.ndim != 1 or (n is not None and len(values) != n):
        wanted = "(n_samples,)" if n is None else f"({n},)"
        raise ValueError(f"{name} must have shape {wanted}; got {values.shape}.")
    return values


def as_images(X, image_shape):
    """(n, height, width) or (n, height, width, 3)."""
    X = X if image_shape is None else X.reshape(len(X), *image_shape)
    if X.ndim == 4 and X.shape[1] in (1, 3) and X.shape[3] not in (1, 3):
        X = X.transpose(0, 2, 3, 1)
    if X.ndim == 4 and X.shape[3] == 1:
        X = X[..., 0]
    if X.ndim == 3 or (X.ndim == 4 and X.shape[3] == 3):
        return X
    raise ValueError(
        "X must hold images, of shape (height, width), with 1 or 3 channels or none; got samples "
        f"of shape {X.shape[1:]}. Pass image_shape=, such as (28, 28)."
    )
