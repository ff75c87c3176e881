"""What all Displays share: colours that colour-blind readers tell apart, and axes."""

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from .._samples.datasets import is_dataset
from .._samples.inputs import as_one_array

# Okabe and Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#8C8C8C"
COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = "osv^Dxh+P*<>"
MOST_TICKS, MOST_IN_LEGEND = 25, 24
MOST_COLUMNS = 5  # of a table's features
WIDEST_TABLE = 30  # columns of an array; with more its rows are taken for images
# one colour per meaning, in every picture; the controls are dashed
STRATEGIES = {
    "random": (BLACK, "o"),
    "herding": (BLUE, "o"),
    "clean_herding": (BLUE, "D"),
    "coverage": (GREEN, "s"),
    "clean_coverage": (ORANGE, "D"),
    "redundant": (VERMILION, "v"),
    "head": (PURPLE, "^"),
    "redundant+head": (VERMILION, "P"),
    "keep_head": (PURPLE, "x"),
    "el2n": (SKY, "v"),
    "grand": (SKY, "*"),
    "k_center": (GREY, "s"),
    "k_center_input": (GREY, "h"),
    "aum": (SKY, "^"),
    "small_loss": (SKY, "s"),
    "forgetting": (SKY, "h"),
    "ccs": (GREY, "D"),
    "moderate": (GREY, "v"),
    "d2": (GREY, "^"),
    "net_clean_random": (GREY, "P"),
    "loo_infinite": (GREY, "x"),
    "loo_rbf": (GREY, "*"),
}
OURS = ("herding", "clean_herding", "coverage", "clean_coverage")
PAPERS = ("redundant", "head", "redundant+head", "keep_head")
CONTROLS = tuple(name for name in STRATEGIES if name not in OURS + PAPERS)


def strategy_style(name, k):
    """How the line of a strategy is drawn; of the k-th, if it is none of ours."""
    color, marker = STRATEGIES.get(name, (COLORS[k % len(COLORS)], MARKERS[-1 - k % len(MARKERS)]))
    return {"color": color, "marker": marker, "ls": "--" if name in CONTROLS else "-"}


def class_style(k):
    """How the points of the k-th class are drawn: another marker where colours begin again."""
    return {"color": COLORS[k % len(COLORS)], "marker": MARKERS[k // len(COLORS) % len(MARKERS)]}


def legend_beside(ax, **options):
    """A legend right of the axes, where it covers no data."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    return ax.legend(**place, **{"fontsize": "small", "frameon": False} | options)


def legend_below(ax, **options):
    """A legend of long labels below the axes."""
    place = {"loc": "upper left", "bbox_to_anchor": (0, -0.16), "borderaxespad": 0}
    return ax.legend(**place, **{"fontsize": "small", "frameon": False} | options)


def class_ticks(ax, places, classes, *, axes="xy"):
    """Names of classes at some places, of many only some."""
    step = -(-len(classes) // MOST_TICKS)
    places, names = np.asarray(places)[::step], [str(c) for c in classes][::step]
    for axis in axes:
        long = axis == "x" and max(map(len, names)) * len(names) > 40
        getattr(ax, f"set_{axis}ticks")(places, names, rotation=90 if long else 0)


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


def samples_at(X, rows, image_shape):
    """Some rows of X as images, or as a table: (images, None) or (None, (names, cells))."""
    index = [str(i) for i in (X.index[rows] if hasattr(X, "iloc") else rows)]
    if hasattr(X, "iloc"):
        names, X = [str(c) for c in X.columns], X.to_numpy(dtype=object)
    else:
        X = as_one_array(X) if is_dataset(X) else np.asarray(X)
        flat = X.ndim == 2 and X.shape[1] <= WIDEST_TABLE and image_shape is None
        if not flat:
            return as_images(X[rows], image_shape), None
        names = [f"feature {k}" for k in range(X.shape[1])]
    X = X[rows]
    more = ["…"] * (X.shape[1] > MOST_COLUMNS)
    cells = [[i, *map(_as_text, row[:MOST_COLUMNS]), *more] for i, row in zip(index, X)]
    return None, (["sample", *names[:MOST_COLUMNS], *more], cells)


def _as_text(value):
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def draw_table(ax, names, cells):
    """A table that fills the axes."""
    ax.set_axis_off()
    table = ax.table(
        cells, colLabels=names, cellLoc="right", loc="upper center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(range(len(names)))
    table.scale(1, 1.3)


def as_images(X, image_shape):
    """(n, height, width) or (n, height, width, 3)."""
    if image_shape is not None:
        if np.prod(image_shape) != np.prod(X.shape[1:]):
            raise ValueError(
                f"image_shape={image_shape} has {np.prod(image_shape)} numbers, and a sample of "
                f"X, of shape {X.shape[1:]}, has {np.prod(X.shape[1:])}."
            )
        X = X.reshape(len(X), *image_shape)
    if X.ndim == 4 and X.shape[1] in (1, 3) and X.shape[3] not in (1, 3):
        X = X.transpose(0, 2, 3, 1)
    if X.ndim == 4 and X.shape[3] == 1:
        X = X[..., 0]
    if X.ndim == 3 or (X.ndim == 4 and X.shape[3] == 3):
        in_bytes = X.ndim == 4 and X.dtype.kind == "f" and X.max() > 1.5
        return X.astype(np.float32) / 255 if in_bytes else X
    raise ValueError(
        "X must hold images, of shape (height, width), with 1 or 3 channels or none; got samples "
        f"of shape {X.shape[1:]}. Pass image_shape=, such as (28, 28), or a frame to draw a table."
    )
