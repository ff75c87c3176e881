"""Raw numbers, one JSON object a line: what a killed run has written is not run again."""

import argparse
import json
import warnings
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


class Records:
    """Results of one experiment, by key.

    Parameters
    ----------
    path : Path
        A file of JSON lines. A torn last line, of a run that was killed, is cut off.
    keys : tuple of str
        The fields that identify a result.
    """

    def __init__(self, path, keys):
        self.path, self.keys = Path(path), keys
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text() if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole)
        self.rows = [json.loads(line) for line in whole.splitlines()]
        self._done = {self._key(row) for row in self.rows}

    def _key(self, row):
        return tuple(row[k] for k in self.keys)

    def __contains__(self, row):
        return self._key(row) in self._done

    def append(self, row):
        """Write a result at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._done.add(self._key(row))


def arguments(description, datasets, **defaults):
    """The parser of a script: what all of them take, with other defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("dataset", choices=datasets)
    parser.add_argument("--cifar", help="an .npz file with X_train, y_train, X_test, y_test")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--n-train", type=int, help="training samples")
    parser.add_argument("--out", help="file of the raw numbers; then no page is written")
    parser.add_argument("--report", action="store_true", help="run nothing, only write the page")
    parser.set_defaults(**defaults)
    return parser


def begun(parser, keys):
    """The arguments, and the records in the file ``out``; on one thread, without warnings."""
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return options, Records(options.out, keys)


def one_of(*names):
    """A type of arguments: as choices, of which there may be none."""

    def checked(name):
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(names)}")
        return name

    return checked


def seeds_of(options):
    """The seeds that the arguments ask for."""
    return range(options.first_seed, options.first_seed + options.seeds)
