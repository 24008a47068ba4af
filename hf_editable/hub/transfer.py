"""To the Hub and from it: whole folders, in which a card that a person wrote is kept."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard, ResolvedRevision, hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError
from transformers.utils import logging, resolve_revision

from .. import __version__
from ..errors import EditableFileError
from .cards import CARD_NAME, by_a_person, write_card


logger = logging.get_logger(__name__)


def pin_revision(name: str | os.PathLike, hub_kwargs: dict[str, Any]) -> str | None:
    """
    Put the commit that is loaded into `hub_kwargs`, so that all files come from it.

    Args:
        name (`str`): a folder, or `user/name` of a repository.
        hub_kwargs (`dict[str, Any]`): arguments of a `from_pretrained`; `revision` is changed.

    Returns:
        `str`: the commit's hash, or `None` for a folder.
    """
    options = {key: hub_kwargs[key] for key in ("token", "cache_dir", "local_files_only") if key in hub_kwargs}
    revision = resolve_revision(name, hub_kwargs.get("revision"), **options)
    if isinstance(revision, ResolvedRevision):
        hub_kwargs["revision"] = revision
        return revision.resolved
    return None


def download(name: str | os.PathLike, files: list[str], **hub_kwargs: Any) -> Path:
    """
    Some files of a repository of the Hub.

    Args:
        name (`str`): `user/name` of the repository.
        files (`list[str]`): their names; those that it lacks are left out.
        hub_kwargs (*optional*): see [`~huggingface_hub.snapshot_download`].

    Returns:
        `Path`: a folder with the files.

    Raises:
        EditableFileError: if there is no such repository or revision, or it cannot be reached.
    """
    try:
        return Path(snapshot_download(os.fspath(name), allow_patterns=files, **hub_kwargs))
    except (OSError, ValueError) as error:  # among them what huggingface_hub raises for paths, names and networks
        raise EditableFileError(
            f"{os.fspath(name)!r} is no folder, and nothing of that name could be had from the Hub: {error}. Check "
            "the path, or the name (user/name), the revision, and the token if it is private."
        ) from error


def upload(
    repo_id: str,
    save: Callable[[Path], None],
    card: Callable[[str], ModelCard],
    *,
    commit_message: str,
    commit_description: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """
    Upload what `save` writes to a repository of the Hub, created if needed, with a card.

    Args:
        repo_id (`str`): `user/name` of the repository; without a user, that of the token.
        save (`Callable[[Path], None]`): writes all files but the card to a folder.
        card (`Callable[[str], ModelCard]`): the card, by the repository's full name.
        commit_message (`str`): first line of the commit's message.
        commit_description (`str`, *optional*): the rest of it.
        token (`str`, *optional*): access token; the one logged in with by default.
        private (`bool`, *optional*): whether a new repository is private.
        revision (`str`, *optional*): branch to commit to, created if needed; by default `main`.
        create_pr (`bool`, *optional*, defaults to `False`): whether to open a pull request instead.
    """
    api = HfApi(token=token, library_name="hf_editable", library_version=__version__)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        take_card(folder, repo_id, revision, token)
        write_card(card(repo_id), folder)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
        )


def take_card(folder: Path, repo_id: str, revision: str | None, token: str | bool | None) -> None:
    """
    Bring the card that a person wrote on the Hub, if there is one, into a folder that is about to be uploaded there.

    A local card that a person wrote too is moved aside, to a name that is not uploaded, with a warning.

    Raises:
        OSError: if the Hub cannot be asked.
    """
    try:
        text = Path(hf_hub_download(repo_id, CARD_NAME, revision=revision, token=token)).read_bytes()
    except (RemoteEntryNotFoundError, RevisionNotFoundError):
        return
    if not by_a_person(text):
        return
    local = folder / CARD_NAME
    if local.exists() and local.read_bytes() != text and by_a_person(local.read_bytes()):
        aside = folder / f"_{CARD_NAME}"
        logger.warning(f"{local} and the card of {repo_id} are both written by a person. Moving the local to {aside}.")
        local.replace(aside)
    local.write_bytes(text)
