"""File locks, which the system drops should the process die."""

import errno
from contextlib import contextmanager

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
    with _opened(file) as stream:
        if stream is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(file):
    """Hold a lock if it is free: yields whether it was."""
    if fcntl is None:
        yield True
        return
    with _opened(file) as stream:
        try:
            if stream is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def _opened(file):
    """A file to lock; None for who may read only, and has nothing to lock."""
    try:
        stream = open(file, "w")  # noqa: SIM115
    except PermissionError:
        stream = None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        stream = None
    try:
        yield stream
    finally:
        if stream is not None:
            stream.close()
