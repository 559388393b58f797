"""One file of a data set on the Hugging Face hub, fetched whole or not at all."""

import os
from pathlib import Path

from kvt_async.contract.errors import ConfigError, KvtError, ServerError
from kvt_async.data.sources.source import file_sha256

ANSWER_S = 10  # for the hub's first answer


def fetch(repo: str, name: str, revision: str, folder: Path, advice: str) -> Path:
    """`name` of data set `repo` at `revision`, written to `folder`.

    What the hub announces is asked for first, so a hub that isn't there leaves no trace; what arrives must have the
    announced SHA-256, else it is removed. Raises ConfigError for a revision or file the hub does not have, and offline;
    ServerError where the hub can't be reached or the download broke off. `advice` says how to do without the hub.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    at = endpoint()
    url = hf_hub_url(repo, name, repo_type="dataset", revision=revision, endpoint=at)
    try:
        announced = get_hf_file_metadata(url, timeout=ANSWER_S, endpoint=at).etag
    except Exception as error:  # the client raises many kinds: no network, no such revision, gated
        raise _explained(error, repo, name, revision, advice) from None
    try:
        path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision, local_dir=folder, endpoint=at))
    except OSError as error:
        if error.errno is not None:  # of the file system; the client's own carry none
            raise ConfigError(f"{name} can't be written: {error.strerror}", where=str(folder), do=advice) from None
        raise _broken_off(error, repo, name, revision, advice) from None
    except Exception as error:
        raise _broken_off(error, repo, name, revision, advice) from None
    if announced is not None and len(announced) == 64 and (arrived := file_sha256(path)) != announced:
        path.unlink()
        raise ServerError(
            f"what arrived is not the {name} that the hub announced, and was removed",
            where=f"{repo}@{revision[:12]}",
            details=(f"sha256   announced {announced}", f"         arrived   {arrived}"),
            do=f"Try again. {advice}",
        )
    return path


def endpoint() -> str | None:
    """Another hub than the public one, as the client's own variable names it."""
    return os.environ.get("HF_ENDPOINT") or None


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300]


def _explained(error: Exception, repo: str, name: str, revision: str, advice: str) -> KvtError:
    from huggingface_hub import errors

    where, why = f"{repo}@{revision[:12]}", (first_line(error),)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ConfigError(f"{name} could not be fetched: HF_HUB_OFFLINE is set", where=where, do=advice)
    if isinstance(error, errors.RevisionNotFoundError):
        do = f"Set dataset.revision to null for the pinned one. {advice}"
        return ConfigError("the hub has no such revision", where=f"dataset.revision {revision}", do=do)
    if isinstance(error, errors.EntryNotFoundError):
        return ConfigError(f"the hub has no {name} at this revision", where=where, do=advice)
    if isinstance(error, errors.RepositoryNotFoundError):  # gated ones are a subclass
        return ConfigError("the hub does not give this data set", where=where, details=why, do=advice)
    return ServerError(f"{name} could not be fetched: the hub can't be reached", where=where, details=why, do=advice)


def _broken_off(error: Exception, repo: str, name: str, revision: str, advice: str) -> ServerError:
    return ServerError(
        f"the download of {name} broke off",
        where=f"{repo}@{revision[:12]}",
        details=(first_line(error),),
        do=f"The same command tries again. {advice}",
    )
