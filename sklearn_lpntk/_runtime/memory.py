"""How much memory there is to take."""

import os
from pathlib import Path

import torch

SHARE = 0.5  # of what is free, for factors that are kept


def limit_of(device):
    """Bytes that factors may take on a device; None where that can't be told."""
    free = available(device)
    return None if free is None else int(SHARE * free)


def available(device):
    """Free bytes on a device, or None."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free = [f for f in (_system(), _control_group()) if f is not None]
    return min(free, default=None)


def _system():
    """What the system would give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _control_group():
    """What a container leaves; pages that only cache files count as free."""
    for folder, limit, usage, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        try:
            folder = Path(folder)
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, most - used + int(stat.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None
