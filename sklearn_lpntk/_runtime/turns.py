"""Turns of threads with what they share: networks, and the global random generators.

Who needs both takes the generators first.
"""

import os
import random
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

# what a view of a module notes down: the module, what it is called by, and how that was made
ORIGINAL, CALLED, MADE = "_original_of_this_view", "_call_of_this_view", "_maker_of_this_view"


class _Turns:
    """Many threads may have what they share as it is, or one of them may change it.

    A thread that changes it may have it as it is at the same time; the others wait.
    """

    def __init__(self):
        self._changed, self._users, self._owner = threading.Condition(), {}, (None, 0)
        self._waiting_user = None  # one that wants to be alone; two would wait for each other

    @contextmanager
    def one_of_many(self):
        """As it is."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._owner[0] in (None, me))
            self._users[me] = self._users.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._users[me] -= 1
                if not self._users[me]:
                    del self._users[me]
                self._changed.notify_all()

    @contextmanager
    def alone(self):
        """To change it."""
        me = threading.get_ident()
        with self._changed:
            if me in self._users:
                if self._waiting_user not in (None, me):
                    raise RuntimeError(
                        "Two threads each train a net inside of a computation that keeps the "
                        "global random state (a kernel's callable, a forward pass, a data set): "
                        "they would wait for each other for ever. Train it before."
                    )
                self._waiting_user = me
            try:
                self._changed.wait_for(
                    lambda: self._owner[0] in (None, me) and self._users.keys() <= {me}
                )
            finally:
                self._waiting_user = None if self._waiting_user == me else self._waiting_user
            self._owner = (me, self._owner[1] + 1)
        try:
            yield
        finally:
            with self._changed:
                depth = self._owner[1] - 1
                self._owner = (me if depth else None, depth)
                self._changed.notify_all()


_GENERATORS = _Turns()
_LOCKS, _GUARD = WeakIdKeyDictionary(), threading.Lock()  # of modules and parameters


def _forget_threads():
    """In a forked child: whoever had a turn does not exist there."""
    global _GENERATORS, _LOCKS, _GUARD
    _GENERATORS, _LOCKS, _GUARD = _Turns(), WeakIdKeyDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def exclusive(module):
    """One thread at a time works on a module, or on any that shares a part or parameter with it."""
    with _GUARD:
        parts = [vars(part).get(ORIGINAL, part) for part in module.modules()]
        parts = {id(part): part for part in [*parts, *module.parameters()]}
        # everyone in the same order
        locks = [_LOCKS.setdefault(parts[key], threading.RLock()) for key in sorted(parts)]
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


@contextmanager
def in_turn(module):
    """One thread at a time uses a module; the global random states are kept."""
    cuda = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with random_state_kept(sorted(cuda)), exclusive(module):
        yield


@contextmanager
def random_state_kept(devices=()):
    """The global generators of torch (also on some GPUs), numpy and Python come back.

    No other thread seeds them meanwhile.
    """
    with _GENERATORS.one_of_many(), _restored(devices):
        yield


@contextmanager
def seeded(seed, devices=()):
    """The same, seeded; other threads that use them wait, and so does this one for them."""
    with _GENERATORS.alone(), _restored(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


@contextmanager
def _restored(devices):
    state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(state[0])
        random.setstate(state[1])
