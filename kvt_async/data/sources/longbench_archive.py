"""Where LongBench's files lie: a data.zip, a folder, kvt's cache of the archive, or the hub."""

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import raw_dir
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.hub import endpoint, fetch, first_line
from kvt_async.data.sources.source import did_you_mean, file_sha256, unreadable

REPO = "zai-org/LongBench"
REVISION = "5e628be450b7e67fb7ae6e201bd6d8f7056f7672"
ARCHIVE = "data.zip"
# What reading a member raises: broken, cut, damaged, encrypted, or packed in a way that Python doesn't know.
BROKEN = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError)
_ADVICE = f"Set dataset.path to a copy of {ARCHIVE} from {REPO} (114 MB), or to a folder with data/TASK.jsonl."


@dataclass(frozen=True, slots=True)
class Member:
    """One task's file. `sha256`: of the archive, or of the file where it lies in a folder."""

    path: Path
    inside: str | None  # name within the archive; None: path is the file itself
    sha256: str

    @property
    def where(self) -> str:
        return f"{self.path}/{self.inside}" if self.inside else str(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        if self.inside is None:
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.inside) as packed:
                yield io.BufferedReader(cast(io.RawIOBase, packed))  # its own readline takes a limit, but slowly


def find_member(path: Path, file_name: str) -> Member:
    """`file_name` in an archive or folder, under data/ or at its top. Raises ConfigError, naming what is there."""
    try:
        if path.is_dir():
            for file in (path / "data" / file_name, path / file_name):
                if file.is_file():
                    return Member(file, None, file_sha256(file))
        elif path.is_file():
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            for inside in (f"data/{file_name}", file_name):
                if inside in names:
                    return Member(path, inside, file_sha256(path))
        else:
            raise ConfigError("there is no such file or folder", where=str(path), do=_ADVICE)
    except zipfile.BadZipFile:
        raise ConfigError("this is neither a folder nor a zip archive", where=str(path), do=_ADVICE) from None
    except OSError as error:
        raise unreadable(path, error) from None
    names = sorted(local_listing(path) or ())
    advice = did_you_mean(file_name, names) if names else _ADVICE
    raise ConfigError(f"it holds no data/{file_name}", where=str(path), do=advice)


def local_listing(path: Path) -> set[str] | None:
    """Names of the .jsonl files of an archive or folder; None when there is none."""
    if path.is_dir():
        return {file.name for folder in (path, path / "data") for file in folder.glob("*.jsonl")}
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return {Path(name).name for name in archive.namelist() if name.endswith(".jsonl")}


def hub_zip(settings: Settings) -> tuple[Path, str]:
    """The archive at the pinned revision (or dataset.revision), from output.data_dir/raw or fetched into it.

    Raises ConfigError or ServerError when it is neither there nor to be had.
    """
    revision = settings.dataset.revision or REVISION
    folder = _cache(settings, revision)
    if (folder / ARCHIVE).is_file():
        return folder / ARCHIVE, revision
    return fetch(REPO, ARCHIVE, revision, folder, _ADVICE), revision


def hub_listing(settings: Settings) -> tuple[set[str] | None, str]:
    """File names in the cached archive, else in the hub's (its directory alone is read), and where they come from;
    None and the reason when neither can be had.
    """
    revision = settings.dataset.revision or REVISION
    cached = _cache(settings, revision) / ARCHIVE
    if cached.is_file():
        return local_listing(cached), str(cached)
    try:
        from huggingface_hub import HfFileSystem

        with (
            HfFileSystem(endpoint=endpoint()).open(
                f"datasets/{REPO}@{revision}/{ARCHIVE}", "rb", block_size=1 << 16
            ) as remote,
            zipfile.ZipFile(remote) as archive,
        ):
            return {Path(name).name for name in archive.namelist() if name.endswith(".jsonl")}, f"{REPO}@{revision}"
    except Exception as error:  # any failure to look means the same here: it can't be confirmed
        return None, f"no local archive, and the hub can't be reached ({first_line(error)})"


def _cache(settings: Settings, revision: str) -> Path:
    return raw_dir(settings.output.data_dir, "longbench") / revision
