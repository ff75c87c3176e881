"""File locks, which the system drops should the process die."""

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
    with open(file, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(file):
    """Hold a lock if it is free: yields whether it was."""
    if fcntl is None:
        yield True
        return
    with open(file, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
