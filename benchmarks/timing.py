"""CPU seconds of several functions, by turns."""

import statistics
import time


def seconds_of(function):
    """CPU seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def alternate(repeats, *functions):
    """Median CPU seconds of each, by turns, after one run of each."""
    rounds = [[seconds_of(f) for f in functions] for _ in range(repeats + 1)]
    return [statistics.median(own) for own in zip(*rounds[1:], strict=True)]
