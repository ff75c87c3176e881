"""Files in a folder that others may write to, too: no link that is planted there is followed."""

import os
import secrets

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def write_whole(file, data):
    """Write a file under another name and rename it: it is there whole, or not at all.

    What a process that is killed leaves is called ``name.*.tmp``.
    """
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def expanded(path):
    """A path whose ``~`` is the home folder, as in a shell."""
    return os.path.expanduser(os.fspath(path))
