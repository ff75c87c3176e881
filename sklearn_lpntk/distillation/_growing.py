"""Arrays that grow along their first axis, in memory or in a file."""

import os
from pathlib import Path

import numpy as np


class InMemory:
    """Rows in one array, with room for as many as are expected: pages cost nothing until written.

    Attributes
    ----------
    n : int
        Rows so far.
    """

    def __init__(self, expected):
        self.n, self._expected, self._rows = 0, max(1, expected), None

    def append(self, row):
        """Add a row."""
        if self._rows is None or self.n == len(self._rows):
            grown = np.zeros((self.n + self._expected, *row.shape), row.dtype)
            if self._rows is not None:
                grown[: self.n] = self._rows
            self._rows = grown
        self._rows[self.n] = row
        self.n += 1

    def __getstate__(self):
        rows = None if self._rows is None else self._rows[: self.n]
        return vars(self) | {"_rows": rows}

    @property
    def array(self):
        """All rows, read-only."""
        rows = self._rows[: self.n]
        rows.flags.writeable = False
        return rows


class InFile:
    """Rows in an ``.npy`` file, whole after each of them."""

    def __init__(self, path):
        self.n, self.path = 0, Path(path)
        if self.path.exists():
            raise FileExistsError(
                f"store={str(path)!r} exists, and what was recorded before is not overwritten: "
                "delete it, or pass another file."
            )
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"store={str(path)!r} is to be a file in a folder that does not exist: make "
                f"{str(self.path.parent)!r} first."
            )

    def append(self, row):
        """Add a row: first its numbers, then the header that counts it."""
        if self.n and len(self.array) != self.n:
            raise ValueError(
                f"store={str(self.path)!r} holds {len(self.array)} epochs, and this training has "
                f"recorded {self.n}: a copy of the net has gone on with it. Pass another file."
            )
        row = np.ascontiguousarray(row)
        header = {"descr": row.dtype.str, "fortran_order": False, "shape": (self.n + 1, *row.shape)}
        with self.path.open("r+b" if self.n else "xb") as file:
            if not self.n:
                np.lib.format.write_array_header_1_0(file, header)
            file.seek(0, os.SEEK_END)
            file.write(row.tobytes())
            file.flush()
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)  # with room for the count to grow
        self.n += 1

    @property
    def array(self):
        """All rows, as a read-only memory map."""
        return np.load(self.path, mmap_mode="r")
