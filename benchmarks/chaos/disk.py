"""A small file system of its own for one event, which can be filled and made read-only; nobody else sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from benchmarks.chaos.shim import NotPossibleError

_MB = 2**20
SIZE_MB = 48


class SmallDisk:
    """A tmpfs in a user and mount namespace that a sleeping process holds open.

    Args:
        folder: where it is mounted, for those inside.

    Raises:
        NotPossibleError: namespaces are forbidden here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        mount = f'mount -t tmpfs -o size={SIZE_MB}m tmpfs "$0" && echo ready && exec sleep infinity'
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise NotPossibleError(f"unshare: {error}") from None
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != "ready":
            _, errors = self._holder.communicate()
            raise NotPossibleError(f"no file system in a namespace of its own: {errors.strip()[:200]}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What is typed before a command that is to run inside, in the folder."""
        enter = ("nsenter", "--target", str(self._holder.pid), "--user", "--mount", "--preserve-credentials")
        return (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self._folder))

    @property
    def inside(self) -> Path:
        """The folder as processes outside reach it."""
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def fill(self) -> None:
        """Leaves no byte free."""
        file = os.open(self.inside / ".ballast", os.O_WRONLY | os.O_CREAT)
        try:
            with contextlib.suppress(OSError):
                for size in (_MB, 4096, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            os.write(file, bytes(size))
        finally:
            os.close(file)

    def free(self) -> None:
        """Takes the ballast away."""
        (self.inside / ".ballast").unlink(missing_ok=True)

    def set_writable(self, *, writable: bool) -> None:
        """Mounts it again, for reading alone or for writing; nobody may have a file open for writing."""
        mode = "rw" if writable else "ro"
        command = [*self.prefix, "mount", "-o", f"remount,{mode}", str(self._folder)]
        changed = subprocess.run(command, capture_output=True, text=True, check=False)
        if changed.returncode != 0:
            raise NotPossibleError(f"cannot mount {mode}: {changed.stderr.strip()[:200]}")

    def close(self) -> None:
        """Ends the holder; the file system goes with it once nobody uses it."""
        self._holder.kill()
        self._holder.communicate()
