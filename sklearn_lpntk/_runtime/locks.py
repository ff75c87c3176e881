"""File locks, which the system drops should the process die."""

import errno
import os
from contextlib import contextmanager

from .files import NO_FOLLOW

try:
    import fcntl
except ImportError:  # Windows: two processes may then do the same work twice
    fcntl = None


@contextmanager
def wait_for_lock(file):
    """Hold a lock, once whoever has it lets go."""
    if fcntl is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _opened(file) as lock, _held(lock, fcntl.LOCK_EX):
        yield


@contextmanager
def try_lock(file):
    """Hold a lock if it is free: yields whether it was."""
    if fcntl is None:
        yield True
        return
    with _opened(file) as lock, _held(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_free:
        yield is_free


@contextmanager
def _held(lock, how):
    """Hold the lock on a descriptor, or on nothing; yields whether it was to be had."""
    owner = os.getpid()
    try:
        if lock is not None:
            fcntl.flock(lock, how)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        # closing is not enough: a process forked meanwhile has the descriptor, too, and would
        # keep the lock as long as it lives; nor may that process let go of what is not its own
        if lock is not None and os.getpid() == owner:
            fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def _opened(file):
    """Descriptor of a file to lock; None for who may read only, and has nothing to lock."""
    lock = None
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666)
    except PermissionError:
        pass
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise OSError(
                error.errno,
                f"The lock file {file} is a link, which could lead anywhere, so it is not opened. "
                "Delete it",
            ) from error
        if error.errno != errno.EROFS:
            raise
    try:
        yield lock
    finally:
        if lock is not None:
            os.close(lock)
