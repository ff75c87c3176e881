"""CPU seconds of functions by turns, and the arguments of benchmarks that take them."""

import argparse
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


def arguments(description):
    """Options of a benchmark; with ``--quick`` it has one repeat."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="shrink everything to see that it runs"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.repeats = 1 if options.quick else options.repeats
    return options
