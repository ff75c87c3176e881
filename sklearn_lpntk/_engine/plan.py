"""What a run rests on, and the one loop that tries again where the check refutes it."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Plan:
    """Hand it to the next run for factors that fit together.

    Attributes
    ----------
    autograd : frozenset of str
        Parameters that no rule may cover.
    refuted : frozenset
        Guesses about who owns the rows of a call that the check refuted.
    loop : bool or None
        Whether the autograd rule takes one sample at a time; None until both ways were timed.
    apart : frozenset of str
        Parameters that don't share a factor with others, since batches lay them out otherwise.
    clone : bool
        Whether views are copied when they are recorded, since the network writes to them.
    structure : dict of str -> str
        How parameters were laid out by earlier runs.
    """

    autograd: frozenset = frozenset()
    refuted: frozenset = frozenset()
    apart: frozenset = frozenset()
    loop: bool | None = None
    clone: bool = False
    structure: dict = field(default_factory=dict, compare=False)

    def __or__(self, other):
        """What holds where both were found."""
        return Plan(
            self.autograd | other.autograd,
            self.refuted | other.refuted,
            self.apart | other.apart,
            self.loop or other.loop or (False if False in (self.loop, other.loop) else None),
            self.clone or other.clone,
        ).laid_out(self.structure | other.structure)

    def fits(self, other):
        """Whether features under both plans may be combined."""
        return (self.autograd, self.apart) == (other.autograd, other.apart)

    def laid_out(self, structure):
        """The same with a structure, but for parameters that are to be laid out otherwise."""
        known = {name: text for name, text in structure.items() if name not in self.apart}
        return replace(self, structure=known)

    def but(self, **changes):
        """The same with changes."""
        return replace(self, **changes)


class Refuted(Exception):
    """A run can't go on under its plan; ``plan`` is the next one to try."""

    def __init__(self, plan):
        super().__init__(plan)
        self.plan = plan


def settle(attempt, plan):
    """``attempt(plan)`` under the first plan that nothing refutes; its result, and the plan."""
    while True:
        try:
            return attempt(plan), plan
        except Refuted as refuted:
            plan = plan | refuted.plan


def require_alike(plan, structure, other):
    """Take a structure into another; refute a plan by which a parameter has two of them."""
    apart = {name for name in structure.keys() & other.keys() if structure[name] != other[name]}
    if apart:
        raise Refuted(plan.but(apart=plan.apart | apart))
    structure.update(other)
