"""What one call adds to the per-sample gradient of a weight, in one of five forms."""

from dataclasses import dataclass

import torch

from ..samples import by_sample


@dataclass
class Positions:
    """``sum_t g_t a_t^T`` with ``a: (n, T, D)`` and ``g: (n, R, T, O)``, transposed if so said."""

    a: torch.Tensor
    g: torch.Tensor
    transposed: bool = False

    def matrices(self):
        """The same, multiplied out."""
        n, R, T, width = self.g.shape
        phi = self.g.transpose(2, 3).reshape(n, R * width, T) @ self.a
        return Matrices(phi.view(n, R, width, -1), self.transposed)

    def entries(self, shape):
        """The same, written out in the weight's shape."""
        return self.matrices().entries(shape)


@dataclass
class Matrices:
    """``sum_t g_t a_t^T`` itself: (n, R, O, D), transposed if so said."""

    phi: torch.Tensor
    transposed: bool = False

    def matrices(self):
        """Itself."""
        return self

    def entries(self, shape):
        """The same in the weight's shape."""
        phi = self.phi.transpose(2, 3) if self.transposed else self.phi
        return Entries(phi.reshape(*phi.shape[:2], *shape))


@dataclass
class Rows:
    """Rows of a table: ``g: (n, R, T, E)`` added to the rows ``index: (n, T)``."""

    index: torch.Tensor
    g: torch.Tensor

    def entries(self, shape):
        """The same, written out in the weight's shape."""
        n, R = self.g.shape[:2]
        phi = self.g.new_zeros(n, R, *shape)
        index = self.index[:, None, :, None].expand_as(self.g)
        return Entries(phi.scatter_add_(2, index, self.g))


@dataclass
class Shared:
    """Both of a table and of a layer that has it for its matrix, as in language models."""

    layer: Positions
    table: Rows

    @property
    def is_small(self):
        """Whether the vectors take less memory than what they add up to."""
        depth, numbers = (
            self.layer.a.shape[2],
            sum(t.g[0].numel() for t in (self.layer, self.table)),
        )
        R, width = self.layer.g.shape[1], self.layer.g.shape[3]
        return numbers + self.layer.a[0].numel() < R * width * depth

    def entries(self, shape):
        """The same, written out in the weight's shape."""
        return Entries(self.layer.entries(shape).phi + self.table.entries(shape).phi)


@dataclass
class Entries:
    """The gradient itself: (n, R, *shape)."""

    phi: torch.Tensor

    def entries(self, shape):
        """The same, in the weight's shape."""
        return Entries(self.phi.reshape(*self.phi.shape[:2], *shape))


class Use:
    """What a rule remembers of one call of an operation."""

    @property
    def signature(self):
        """All that its terms depend on, but for numbers and how many samples there are."""
        known = [v.ndim if isinstance(v, torch.Tensor) else v for v in vars(self).values()]
        return type(self).__name__, *map(str, known)


def gathered(call, n, kept):
    """Output gradients of a call as (n, R, T, ...), the last ``kept`` axes as they are."""
    zero = next(g for g in call.gradients if g is not None)
    zero = torch.zeros_like(zero) if any(g is None for g in call.gradients) else None
    parts = [by_sample(zero if g is None else g, call.where, n, kept) for g in call.gradients]
    return parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(parts, 1)


def arguments(names, args, kwargs):
    """Arguments by name, None where not given."""
    return dict.fromkeys(names.split()) | dict(zip(names.split(), args)) | kwargs
