"""Fingerprints of nested values: what a cached result depends on, and nothing else.

joblib's hash of a net that holds a module instance changes at every clone, so that a grid
search would never hit. A fingerprint here depends on values only: on the numbers in arrays,
tensors and modules, and on the code of functions and classes with what that code refers to. A
library's code counts by its name and version. What has no value that could be compared (a lock,
an open file, a generator) raises, since a fingerprint without it could serve stale results.
"""

import hashlib
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, field

from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch.nn import Module

from . import code  # noqa: F401 (its kinds of values)
from .turns import exclusive
from .values import (
    Code,
    Label,
    NoFingerprintError,
    Unordered,
    attributes_of,
    is_known_by_number,
    parts_of,
)

__all__ = ["NoFingerprintError", "fingerprint"]


def fingerprint(*values):
    """A hex digest of nested values.

    Raises
    ------
    NoFingerprintError
        If one has no value that could be compared; the message says where it is.
    """
    return _Walk().whole(values).hexdigest()


@dataclass
class _Walk:
    """One walk through nested values.

    ``under_way`` are the values that hold the one at hand: one that holds itself is fed once.
    ``known`` are the objects that are fed once and then by their number: code and instances,
    which refer to each other in so many ways that there would be no end otherwise. They are fed
    ``later``, since a chain of functions may be longer than Python's stack is deep.
    """

    digest: object = field(default_factory=lambda: hashlib.blake2b(digest_size=20))
    under_way: set = field(default_factory=set)
    known: dict = field(default_factory=dict)
    later: deque = field(default_factory=deque)
    path: tuple = ()
    in_code: bool = False

    def whole(self, value):
        """The digest of a value with all that it leads to."""
        self._feed(value)
        while self.later:
            value, self.path, self.in_code = self.later.popleft()
            self._feed_parts(value)
        return self.digest

    def _feed(self, value):
        kind = type(value)
        self.digest.update(f"<{kind.__module__}.{kind.__qualname__}>".encode())
        if is_known_by_number(value):
            is_new = id(value) not in self.known
            # the value itself is kept, so that no other gets its id
            number, _ = self.known.setdefault(id(value), (len(self.known), value))
            self.digest.update(f"#{number}".encode())
            if is_new:
                self.later.append((value, self.path, self.in_code))
        elif id(value) not in self.under_way:
            self._feed_parts(value)

    def _feed_parts(self, value):
        # a network that another thread has borrowed is another one meanwhile
        with exclusive(value) if isinstance(value, Module) else nullcontext():
            self._feed_own(value)

    def _feed_own(self, value):
        try:
            parts = self._parts(value)
        except NoFingerprintError as error:
            raise NoFingerprintError(error.value, (*self.path, *error.path)) from error
        self.digest.update(f"{len(parts)}:".encode())  # so that nesting counts
        path, in_code = self.path, self.in_code
        self.in_code = in_code or isinstance(value, Code)
        self.under_way.add(id(value))
        for part in parts:
            self._feed_part(part)
            self.path = path
        self.under_way.discard(id(value))
        self.in_code = in_code

    def _feed_part(self, part):
        if isinstance(part, memoryview):
            self.digest.update(f"{part.nbytes}:".encode())
            self.digest.update(part)
        elif isinstance(part, Unordered):
            for digest in sorted(map(self._apart, part.values)):
                self.digest.update(digest)
        elif isinstance(part, Label):
            self._feed(part.name)
            self.path = *self.path, part.name
            self._feed(part.value)
        else:
            self._feed(part)

    def _apart(self, value):
        """The digest of an element that has no place among others."""
        walk = _Walk(
            under_way=set(self.under_way),
            known=dict(self.known),
            path=self.path,
            in_code=self.in_code,
        )
        return walk.whole(value).digest()

    def _parts(self, value):
        """Parts of a value; an estimator that code uses as it is counts with what it learnt."""
        if self.in_code and isinstance(value, BaseEstimator) and not isinstance(value, NeuralNet):
            return attributes_of(value)
        return parts_of(value)
