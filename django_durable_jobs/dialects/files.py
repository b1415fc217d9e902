"""What kind of file system a database file lies on: SQLite's locks and its shared memory need a local one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where Linux lists what is mounted (proc(5)); other systems have no such file, and get no answer."""

NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre"}
    | {"ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
"""Types of file systems that other machines, or another kernel, share."""


def network_file_system_of(file: str, mounts: Path | None = None) -> str | None:
    """Return the type of the network file system that ``file`` lies on; ``None`` if it is local or not known."""
    try:
        lines = (mounts or MOUNTS).read_text(errors="replace").splitlines()
        path = Path(file).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    kind, depth = None, -1
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:  # noqa: PLR2004 -- the mount point is the fifth
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        # A later line covers an earlier one of the same place.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = after.split(" ")[0], len(point.parts)
    return kind if kind in NETWORK else None
