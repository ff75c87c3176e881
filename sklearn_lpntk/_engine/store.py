"""Features in a folder on disk: as large as the disk, and still there after a crash.

A store is a folder with a ``manifest.json``, which says of what network, data and kernel the
features are, and a folder of shards, each the factors of some consecutive samples. A shard is
written under another name and renamed when it is complete, with its checksum in its name: so
the shards that are there are the done-mask, and a process that dies leaves a store that
another one completes. Locks, which die with their process, let several work on one store.
"""

import errno
import json
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import torch

from .._runtime.files import expanded, write_whole
from .._runtime.locks import try_lock, wait_for_lock
from ..exceptions import StoreMismatchError
from .features import Features
from .shards import pack, unpack
from .sources import Source

FORMAT = 2
SHARD_BYTES = 2**26  # at most, but for a batch
SHARDS = 32  # at least, but for a batch


class Store:
    """A folder of features of ``n_samples`` samples, written shard by shard.

    Parameters
    ----------
    path : path-like
        A store of the same identity, or a folder that is empty or does not exist.
    identity : dict of str -> str
        What the features depend on.
    n_samples, batch_size : int

    Raises
    ------
    StoreMismatchError
        If the store was made with another identity.
    ValueError
        If the folder holds something else.
    """

    def __init__(self, path, identity, n_samples, batch_size):
        self.path = Path(expanded(path)).absolute()
        self.n_samples, self.batch_size = n_samples, batch_size
        self.identity = {"format": str(FORMAT), "n_samples": str(n_samples)} | identity
        self.path.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(self.path / "lock"):
            manifest = self._read_manifest()
            if manifest is None:
                self._refuse_other_files()
            else:
                self._check_identity(manifest["identity"])
        self._adopt(manifest)

    # -- the manifest ---------------------------------------------------------------------

    def _read_manifest(self):
        file = self.path / "manifest.json"
        if not file.exists():
            return None
        try:
            manifest = json.loads(file.read_text())
            content = {k: v for k, v in manifest.items() if k != "checksum"}
            intact = manifest["checksum"] == _checksum(_json(content))
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise ValueError(
                f"The manifest of the store {self.path} is damaged. Delete the folder, or pass "
                "another one, and the features are computed again."
            )
        return manifest

    def _write_manifest(self):
        content = {"identity": self.identity, "shard_rows": self.shard_rows, "plan": self.plan}
        text = json.dumps(content | {"checksum": _checksum(_json(content))}, indent=1)
        for left in self.path.glob("manifest.json.*.tmp"):
            left.unlink(missing_ok=True)  # of a process that was killed
        self._write(self.path / "manifest.json", text.encode())

    def _refuse_other_files(self):
        mine = {"lock", *self.path.glob("manifest.json.*.tmp")}  # of a process that was killed
        others = sorted(p.name for p in self.path.iterdir() if not {p, p.name} & mine)
        if others:
            raise ValueError(
                f"store={str(self.path)!r} is no store, but it is not empty: it holds "
                f"{others[:3]}. Pass a folder that is empty or does not exist."
            )

    def _check_identity(self, found):
        differing = [k for k, v in self.identity.items() if found.get(k) != v]
        if differing:
            what = ", ".join(_difference(k, found.get(k), self.identity[k]) for k in differing)
            raise StoreMismatchError(
                f"The store {self.path} holds the features of something else. What differs: "
                f"{what}. Pass another folder, or delete this one to compute its features again."
            )

    def _adopt(self, manifest):
        """Take shard size and plan from a manifest, None where there is none yet."""
        self.shard_rows = manifest["shard_rows"] if manifest else None
        self.plan = manifest["plan"] if manifest else None

    # -- shards ---------------------------------------------------------------------------

    def begin(self, sample_bytes):
        """Choose the size of the shards, unless another process has."""
        with wait_for_lock(self.path / "lock"):
            self._adopt(self._read_manifest())
            if self.plan is None:
                large = SHARD_BYTES // (sample_bytes * self.batch_size)
                small = self.n_samples // (SHARDS * self.batch_size)
                self.shard_rows = max(1, min(large, small)) * self.batch_size
                self.plan = []
                self._write_manifest()
                self._folder.mkdir(exist_ok=True)

    def merge(self, plan):
        """Agree on the rule plan with whoever uses the store.

        Parameters
        ----------
        plan : iterable of str
            Parameters that the rules can't cover, or not together with others.

        Returns
        -------
        plan : list of str
            The same, with those that others found. Shards under another plan do not fit
            and are deleted.
        """
        with wait_for_lock(self.path / "lock"):
            self._adopt(self._read_manifest())
            merged = sorted({*plan, *self.plan})
            if merged != self.plan:
                self.plan = merged
                self._write_manifest()
                for old in self.path.glob("shards-*"):
                    if old != self._folder:
                        shutil.rmtree(old, ignore_errors=True)
            if not self._folder.exists():
                self._folder.mkdir()
        return self.plan

    @property
    def _folder(self):
        return self.path / f"shards-{_checksum(_json(self.plan))}"

    @property
    def shards(self):
        """The rows of each shard, as slices."""
        step = self.shard_rows
        return [slice(i, min(i + step, self.n_samples)) for i in range(0, self.n_samples, step)]

    def file(self, number):
        """The file of a shard that is done, else None."""
        return next(iter(sorted(self._folder.glob(f"{number:06d}-*.shard"))), None)

    @property
    def missing(self):
        """Numbers of the shards that are not done."""
        done = {int(file.name[:6]) for file in self._folder.glob("*-*.shard")}
        return [i for i in range(len(self.shards)) if i not in done]

    def drop_damaged(self):
        """Delete the shards that are not what was written; their file names."""
        damaged = []
        for file in sorted(self._folder.glob("*-*.shard")):
            with suppress(FileNotFoundError):  # another process may be at it too
                if _checksum(file.read_bytes()) != file.stem[7:]:
                    file.unlink()
                    damaged.append(file.name)
        return damaged

    def claim(self, number):
        """Lock of a shard, as a context manager: False where another process holds it."""
        return try_lock(self._folder / f"{number:06d}.lock")

    def read(self, number):
        """The features of a shard that is done."""
        file = self.file(number)
        if file is None:
            raise FileNotFoundError(
                f"Shard {number} of the store {self.path} is gone. Make the operator again "
                "with the same store=: what is missing is computed again."
            )
        return unpack(file)

    def write(self, number, features):
        """Add a shard that was claimed; whole, or not at all.

        Raises
        ------
        OSError
            If the disk is full, with how much is done and how much there is to come.
        """
        for left in self._folder.glob(f"{number:06d}-*.tmp"):
            left.unlink(missing_ok=True)  # of a process that was killed
        data = pack(features)
        self._write(self._folder / f"{number:06d}-{_checksum(data)}.shard", data)

    def _write(self, file, data):
        try:
            write_whole(file, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            left = len(self.missing)
            raise OSError(
                error.errno,
                f"No space is left for the store {self.path}: {len(self.shards) - left} of "
                f"{len(self.shards)} shards are done, and the others take about "
                f"{left * len(data) / 2**30:.3g} GiB. Free as much, or copy the folder to a larger "
                "disk, and run again with the same store=: it goes on where it stopped",
            ) from error


class StoredFeatures(Source):
    """The features of a complete store; rows are read when they are taken."""

    def __init__(self, store, device):
        self._store = store
        super().__init__(store.read(0), store.n_samples)
        self.device = device

    def take(self, rows):
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop)
        rows = rows.cpu()
        number, within = rows // self._store.shard_rows, rows % self._store.shard_rows
        parts, places = [], []
        for i in number.unique().tolist():
            at = (number == i).nonzero()[:, 0]
            parts.append(self._store.read(i).take(within[at]))
            places.append(at)
        found = Features.cat(parts)
        places = torch.cat(places)
        if not torch.equal(places, torch.arange(len(places))):
            found = found.take(torch.argsort(places))
        return found.to(self.device)


def _json(content):
    return json.dumps(content, sort_keys=True).encode()


def _checksum(data):
    return f"{zlib.crc32(data):08x}"


def _difference(name, stored, asked):
    """A part of the identity, with its values where they are no digests."""
    if name in ("network", "data X", "labels y", "parameters"):
        return name
    if name == "kernel":  # its name, without the digest of its code
        stored, asked = str(stored).split()[0], asked.split()[0]
    return f"{name} ({stored}, asked for {asked})"
