"""Results in a folder, each with a checksum and with the digests of what it depends on."""

import hashlib
import json

from .files import write_whole


class DamagedEntryError(Exception):
    """A file is not what was written."""


class Entries:
    """Named results as bytes, in a folder.

    An entry is a file of three parts: the checksum of what follows, a line of JSON with the
    digests of the key's parts, and the result. Its folder has the form of those that
    ``joblib.Memory.reduce_size`` knows.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder):
        self.folder = folder

    def file(self, name):
        return self.folder / name / "output.pkl"

    def read(self, name):
        """The bytes of a result; None where there is no such entry.

        Raises
        ------
        DamagedEntryError
            If they are not those that were written.
        """
        try:
            checksum, _, content = self.file(name).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if checksum != _checksum(content):
            raise DamagedEntryError("its checksum is another one")
        return content.partition(b"\n")[2]

    def write(self, name, parts, data):
        """Add an entry or replace it, under its lock; whole, or not at all."""
        file = self.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob("*.tmp"):
            left.unlink(missing_ok=True)  # of a process that was killed
        content = json.dumps(parts, sort_keys=True).encode() + b"\n" + data
        write_whole(file, _checksum(content) + b"\n" + content)

    def nearest(self, parts):
        """Names of the parts in which the most similar entry differs; None without entries."""
        found = [_differing(parts, other) for other in self._all_parts()]
        return min(found, key=len, default=None)

    def _all_parts(self):
        for file in sorted(self.folder.glob("*/output.pkl")):
            try:
                with open(file, "rb") as stream:
                    stream.readline(1000)
                    parts = json.loads(stream.readline(100_000))
            except (OSError, ValueError):  # damaged, or deleted meanwhile
                continue
            if isinstance(parts, dict):
                yield parts


def _differing(parts, other):
    return sorted(name for name in {*parts, *other} if parts.get(name) != other.get(name))


def _checksum(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest().encode()
