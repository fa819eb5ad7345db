"""A folder of files sent to the hub as one commit, by huggingface_hub: who may write is asked
before anything is sent, and a repeated push sends only what changed.

The token is the hub's own: from HF_TOKEN, or the login of `hf auth login`. It is never printed.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from files.verify import sha256

WRITERS = ("write", "fineGrained")  # roles of a token; what the second may is asked of the hub
REASONS = {
    401: "the hub does not know this token: log in with `hf auth login`, or set HF_TOKEN",
    403: "this token may not write there: make one with the right to write",
    404: "the hub knows no such place for this token",
    413: "the hub takes no files of this size",
    429: "the hub takes no more requests for a while",
}


@dataclass(frozen=True)
class Pushed:
    """`url` of the commit, or of the model where there was nothing to commit; names of the files
    that were sent, that were there already, and that are there beside them."""

    url: str
    sent: list[str]
    same: list[str]
    others: list[str]


def push_folder(folder: Path, names: list[str], repo: str, private: bool, message: str) -> Pushed:
    """Send the files `names` of a folder to the model `repo` ("USER/NAME"), made if it is not
    there, `private` or not. Raises ValueError, one sentence, where it cannot be, or is public and
    was to be private: nothing was changed then but that the model may have been made."""
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    if get_token() is None:
        raise ValueError(
            "there is no token for the hub: log in with `hf auth login`, or set HF_TOKEN"
        )
    with one_sentence(f"asking the hub whether {repo} may be written to"):
        who = api.whoami()
    check_rights(who, repo)
    with one_sentence(f"asking the hub for {repo}"):
        public, there = open_repo(api, repo, private)
    if public and private:
        raise ValueError(
            f"{repo} is there, and public: make it private on its page of the hub first, or leave "
            "out --private"
        )
    sent = [name for name in names if not is_there(folder / name, there.get(name))]
    others = sorted(there.keys() - {*names} - {".gitattributes"})
    same = [name for name in names if name not in sent]
    if not sent:
        return Pushed(f"{api.endpoint}/{repo}", [], same, others)
    operations = [CommitOperationAdd(name, folder / name) for name in sent]
    with one_sentence(f"sending to {repo}"):
        done = api.create_commit(repo, operations, commit_message=message)
    return Pushed(str(done.commit_url), sent, same, others)


def check_rights(who: Mapping[str, Any], repo: str) -> None:
    """Raise ValueError unless a token, of which the hub says `who` it is, may write for the user,
    or organisation."""
    user, owner = who.get("name"), repo.partition("/")[0]
    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role is not None and role not in WRITERS:
        raise ValueError(f"the token of {user} may only {role}: make one with the right to write")
    rights = {one.get("name"): one.get("roleInOrg") for one in who.get("orgs", [])}
    if owner != user and owner not in rights:
        raise ValueError(
            f"the token is that of {user}, who may not write to {owner}: use {user}/"
            f"{repo.partition('/')[2]}, or another token"
        )
    if owner != user and rights[owner] == "read":
        raise ValueError(f"{user} may only read in {owner}")


def open_repo(api: HfApi, repo: str, private: bool) -> tuple[bool, Mapping[str, Any]]:
    """(whether the model was there and is public, what it holds, by name); it is made where it is
    not there, and the hub is asked whether it may be written to where it is."""
    try:
        info = api.model_info(repo, files_metadata=True)
    except RepositoryNotFoundError as error:
        if status_of(error) == 401:
            raise
        api.create_repo(repo, private=private, repo_type="model")
        return False, {}
    api.auth_check(repo, write=True)
    return not info.private, {one.rfilename: one for one in info.siblings or []}


def is_there(path: Path, known: Any) -> bool:
    """Whether the hub holds a file of just these bytes: git's digest of small files, sha256 of
    large ones."""
    if known is None:
        return False
    if known.lfs is not None:
        return bool(known.lfs.sha256 == sha256(path))
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return bool(known.blob_id == hashlib.sha1(header + content).hexdigest())


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer of the hub."""
    return getattr(getattr(error, "response", None), "status_code", None)


@contextmanager
def one_sentence(doing: str) -> Iterator[None]:
    """What goes wrong with the hub in the block is a ValueError of one sentence."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise ValueError(
            f"{doing}: HF_HUB_OFFLINE is set, which leaves the network alone"
        ) from None
    except HfHubHTTPError as error:
        status = status_of(error)
        again = ": try again later" if status is None or status >= 500 else ""
        reason = REASONS.get(status or 0, f"the hub answers {status}{again}")
        raise ValueError(f"{doing}: {reason}") from None
    except UnicodeError:
        raise ValueError(f"{doing}: the token holds characters that no token has") from None
    except JSONDecodeError:
        raise ValueError(f"{doing}: the hub's answer cannot be read: try again later") from None
    except ValueError as error:  # the library's own words, as of front matter that the hub refuses
        raise ValueError(f"{doing}: {' '.join(str(error).split())}") from None
    except (HTTPError, OSError, RuntimeError) as error:  # the last of the library's large files
        raise ValueError(f"{doing}: the connection failed ({type(error).__name__})") from None
