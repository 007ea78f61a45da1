"""One run per folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path
from typing import IO

from bundle.system.errors import DataWarning

TAKEN = (errno.EACCES, errno.EAGAIN)


class FolderLock:
    """Keeps other processes out of an output folder by a lock on the file ``run.lock`` in it.

    The operating system holds the lock (POSIX), not the file: it ends with its process, however that ends, and the
    workers of a data loader do not inherit it. The file says which process holds it.

    Args:
        folder: the folder; created if missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "run.lock"
        self.file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RuntimeError: when another process has it, naming that process.
        """
        if self.file is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                f"{self.path.parent} is a file, or in one; give another --output_dir for the results"
            ) from error
        while self.file is None:
            file = self.path.open("a+")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip()
                file.close()
                if error.errno in TAKEN:
                    raise RuntimeError(
                        f"{self.path.parent} is in use by {holder or 'another process'}; "
                        "wait for it, stop it, or give another --output_dir"
                    ) from error
                warnings.warn(f"{self.path.parent} cannot be locked ({error.strerror})", DataWarning, stacklevel=2)
                return
            # Its holder may have removed the file after it was opened here and before it was locked.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                self.file = file
            else:
                file.close()
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self.file is not None:
            self.path.unlink(missing_ok=True)
            self.file.close()
            self.file = None
