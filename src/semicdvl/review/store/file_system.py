"""Tell on what kind of file system a database lies."""

from __future__ import annotations

from pathlib import Path

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "lustre",
    "ceph",
    "gpfs",
    "beegfs",
    "afs",
    "glusterfs",
    "virtiofs",
)


def is_on_network(path: Path) -> bool:
    """Tell whether a path is on a network file system, where SQLite's write-ahead log does not work."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True  # not Linux: the slower journal works everywhere
    target, best = str(path.resolve()), ("", "")
    for line in mounts:
        parts = line.split(" ")
        point = parts[1].replace("\\040", " ") if len(parts) > 2 else ""
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if point and inside and len(point) >= len(best[0]):
            best = (point, parts[2])
    return best[1].startswith(NETWORK_FILE_SYSTEMS)
