"""Files that only the service's own user may read: of mode 0600 whatever the umask, and never a symbolic link."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import IO

from receiver.errors import StartError

PRIVATE_MODE = 0o600
OTHERS = 0o077
"""The rights of the group and of others, which a private file has none of."""


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a file; return its descriptor. It is not emptied. One that is made gets `PRIVATE_MODE`.

    Raises `StartError` for a symbolic link and for what is no regular file, and `OSError`.
    """
    # O_NONBLOCK: a FIFO in place of the file must not stop the start. It has no effect on a regular file.
    is_new = not os.path.lexists(path)
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, PRIVATE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise is_a_link(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StartError(f"{path} is not a regular file; remove it")
        if is_new and flags & os.O_CREAT:
            os.fchmod(descriptor, PRIVATE_MODE)  # a umask may have taken the owner's own rights
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_private(path: Path, content: str) -> None:
    """Write a file whole, or not at all: a new file takes the place of what was there, of a link too.

    Raises `OSError`.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = open_private(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.rename(path)
    except OSError:  # what could not take its place is not left beside it: it may be a secret
        temporary.unlink(missing_ok=True)
        raise


def claim_private(path: Path) -> IO[bytes]:
    """Make an empty private file, and keep other processes that claim it out until it is closed.

    What a process that died left there is emptied. Raises `BlockingIOError` if another process has claimed it, and as
    `open_private`.
    """
    claimed = os.fdopen(open_private(path), "r+b")
    try:
        fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(claimed.fileno()), path.stat()):
            raise BlockingIOError  # the process that had claimed it has just given it another name
        claimed.truncate()
    except BaseException:
        claimed.close()
        raise
    return claimed


def close_to_others(path: Path) -> bool:
    """Take the rights of the group and of others from a file that exists; return whether they had any.

    Raises `StartError` for a symbolic link, and `OSError` if the file belongs to another user.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise is_a_link(path)
    if not stat.S_ISREG(mode) or not mode & OTHERS:
        return False
    descriptor = open_private(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, stat.S_IMODE(mode) & ~OTHERS)
    finally:
        os.close(descriptor)
    return True


def is_a_link(path: Path) -> StartError:
    """Return the error for a symbolic link where a file of the service's own must be."""
    return StartError(
        f"{path} is a symbolic link, which somebody else may have put there; remove it, or put the file itself there"
    )
