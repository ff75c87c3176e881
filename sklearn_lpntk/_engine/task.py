"""Calls that may run in another process."""

import functools
import sys


class Task(functools.partial):
    """A partial function that knows how large its arguments are.

    A scheduler such as Dask's sends what is large to a worker once, and not with each call.
    """

    def __sizeof__(self):
        return sum(sys.getsizeof(x) for x in (*self.args, *self.keywords.values()))
