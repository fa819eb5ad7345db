"""What goes to the hub, what never does, and what is said where it cannot be sent."""

import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from hub_stub import TOKEN, Hub
from huggingface_hub.utils import validate_repo_id

from files.publish import publish
from job.exporting import push as pushing
from job.exporting.push import refuse_places
from job.exporting.words import LICENSES, check_license, check_name, check_repo
from job.folder import Folder
from models.elsewhere.hub import push_folder

FILES = {
    "README.md": b'---\nlibrary_name: "transformers"\n---\n\n# model\n',
    "config.json": b"{}\n",
    "model.safetensors": b"weights" * 1000,
    "1_Pooling/config.json": b"{ }\n",
}


@pytest.fixture
def hub(monkeypatch):
    """A hub, a token for it, and a library that may reach it."""
    stub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", stub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # needs a store
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def folder(tmp_path):
    """A published folder."""
    with publish(tmp_path / "made") as made:
        for name, content in FILES.items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_bytes(content)
    return tmp_path / "made"


def send(folder, repo="me/model", private=False):
    return push_folder(folder, [*FILES], repo, private, "a message")


def test_a_new_model_is_made_and_filled_in_one_commit(hub, folder):
    done = send(folder, private=True)
    assert hub.files == FILES
    assert hub.sent == [sorted(FILES)]
    assert hub.private == "private"
    assert (done.sent, done.same, done.others) == ([*FILES], [], [])


def test_rights_are_asked_before_anything_is_sent(hub, folder):
    send(folder)
    assert hub.seen[0] == "GET /api/whoami-v2"
    send_at = next(i for i, one in enumerate(hub.seen) if "preupload" in one)
    assert "POST /api/repos/create" in hub.seen[:send_at]
    hub.seen.clear()
    (folder / "config.json").write_bytes(b"{} \n")
    send(folder)
    send_at = next(i for i, one in enumerate(hub.seen) if "preupload" in one)
    assert "GET /api/models/me/model/auth-check/write" in hub.seen[:send_at]


def test_a_repeated_push_sends_nothing_and_says_so(hub, folder):
    send(folder)
    hub.seen.clear()
    done = send(folder)
    assert (done.sent, done.same) == ([], [*FILES])
    assert not any("commit" in one or "preupload" in one for one in hub.seen)


def test_a_later_push_sends_what_changed_alone_and_leaves_others_files(hub, folder):
    send(folder)
    hub.files["LICENSE"] = b"mine"
    (folder / "model.safetensors").write_bytes(b"others" * 1000)
    done = send(folder)
    assert hub.sent[-1] == ["model.safetensors"]
    assert hub.files["model.safetensors"] == b"others" * 1000
    assert done.others == ["LICENSE"]
    assert hub.files["LICENSE"] == b"mine"


def test_without_a_token_nothing_is_asked(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="hf auth login"):
        send(folder)
    assert hub.seen == []


@pytest.mark.parametrize(
    ("change", "repo", "expected"),
    [
        ({"role": "read"}, "me/model", "the token of me may only read"),
        ({}, "other/model", "who may not write to other: use me/model"),
        ({"orgs": [{"name": "team", "roleInOrg": "read"}]}, "team/model", "may only read in team"),
    ],
)
def test_who_may_not_write_is_told_before_anything_is_made(hub, folder, change, repo, expected):
    vars(hub).update(change)
    with pytest.raises(ValueError, match=expected):
        send(folder, repo)
    assert hub.seen == ["GET /api/whoami-v2"]


@pytest.mark.parametrize(
    ("part", "status", "expected"),
    [
        ("whoami", 401, "does not know this token"),
        ("whoami", 500, "the hub answers 500"),
        ("repos/create", 403, "may not write there"),
        ("repos/create", 500, "the hub answers 500"),
        ("commit", 403, "may not write there"),
        ("validate-yaml", "cut", "the connection failed"),
        ("whoami", "cut", "the connection failed"),
        ("whoami", "page", "the hub answers 502: try again later"),
        ("validate-yaml", 500, "the hub answers 500"),
        ("validate-yaml", "page", "the hub's answer cannot be read"),
        ("validate-yaml", "yaml", "sending to me/model: Invalid metadata in README.md. - language"),
        ("repos/create", 409, "the hub answers 409$"),
    ],
)
def test_what_goes_wrong_is_one_sentence_without_the_token(hub, folder, part, status, expected):
    hub.refuse[part] = status
    with pytest.raises(ValueError, match=expected) as caught:
        send(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert TOKEN not in str(caught.value)
    assert hub.sent == []
    assert not hub.files


@pytest.mark.parametrize("token", ["hf_sécret", "hf_se\ncret", "hf_se cret\x01"])
def test_a_token_that_is_none_is_not_printed(hub, folder, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match="asking the hub whether") as caught:
        send(folder)
    error = caught.value
    while error is not None:  # what came before it is not shown either
        assert "cret" not in str(error)
        error = None if error.__suppress_context__ else error.__context__
    assert hub.files is None


def test_what_all_may_read_is_not_filled_in_private(hub, folder):
    send(folder)
    before = dict(hub.files)
    (folder / "config.json").write_bytes(b"{} \n")
    with pytest.raises(ValueError, match="is there, and public"):
        send(folder, private=True)
    assert hub.files == before


def test_what_is_private_stays_so(hub, folder):
    send(folder, private=True)
    assert send(folder, private=True).sent == []
    assert hub.private == "private"


def test_a_push_that_broke_off_is_made_good_by_the_next(hub, folder):
    hub.refuse["commit"] = "cut"
    with pytest.raises(ValueError, match="connection failed"):
        send(folder)
    hub.refuse.clear()
    send(folder)
    assert hub.files == FILES


def test_offline_mode_is_said(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        send(folder)


def test_licences_are_those_of_the_hub_and_never_guessed():
    assert check_license(" MIT ") == "mit"
    assert {"apache-2.0", "mit", "other", "llama3.1"} <= {*LICENSES}
    with pytest.raises(ValueError, match="called other"):
        check_license("my own")


@pytest.mark.parametrize(
    ("word", "near"),
    [("apache", "apache-2.0"), ("apache2", "apache-2.0"), ("GPLv3", "gpl-3.0"), ("mitt", "mit"),
     ("cc-by-4", "cc-by-4.0"), ("bsd3", "bsd")],
)  # fmt: skip
def test_the_nearest_licence_is_named(word, near):
    with pytest.raises(ValueError, match=re.escape(f"(did you mean {near}")):
        check_license(word)


@pytest.mark.parametrize(
    "name",
    ["me", "me/", "/model", "me/a/b", "me/a b", "../me/x", "me/-x", "me/mödel", "me/a--b",
     "me/a..b", "me/a.git", "me/a.", "me/a\n", "me/" + "a" * 97],
)  # fmt: skip
def test_a_name_that_is_no_model_is_refused(name):
    with pytest.raises(ValueError, match="expected USER/NAME"):
        check_repo(name)


def test_what_is_no_name_of_the_hub_does_not_get_into_the_card():
    assert check_name("--base-model", "gpt2") == "gpt2"
    assert check_name("--dataset", "me/rows") == "me/rows"
    for name in ("/home/me/base", "./base", "a/b/c", "hub:me/base", "me/b\nx: y"):
        with pytest.raises(ValueError, match=r"--base-model .*expected what the hub calls it"):
            check_name("--base-model", name)


def test_every_name_that_we_take_is_one_of_the_librarys():
    for name in ("me/a", "m/" + "a" * 96, "me/a_", "Me-1/a.b-c_d"):
        validate_repo_id(check_repo(name))


def test_a_place_on_this_machine_is_never_sent(tmp_path):
    home = tmp_path / "home of mé"
    for name, text in {
        "a.json": json.dumps({"base": f"{home}/model"}),  # é as an escape
        "a.md": f"opened from {home}",
        "b.json": "{}",
        "empty": "",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    refuse_places(tmp_path, ["b.json", "empty"], [home])
    for name in ("a.json", "a.md"):
        with pytest.raises(ValueError, match=rf"{name} holds a place on this machine"):
            refuse_places(tmp_path, ["b.json", name], [home])


@pytest.mark.parametrize(
    ("name", "text", "refused"),
    [
        ("README.md", "the /root cause", False),
        ("README.md", "from /root/openloop", True),
        ("config.json", '{"base": "/root"}', True),
        ("tokenizer.json", '{"/root": 7}', False),  # a word of a vocabulary
        ("model.gguf", "\0/root\0", False),
    ],
)
def test_a_place_of_one_name_may_be_a_word(tmp_path, name, text, refused):
    (tmp_path / name).write_text(text, encoding="utf-8")
    if refused:
        with pytest.raises(ValueError, match="holds a place on this machine, /root"):
            refuse_places(tmp_path, [name], [Path("/root")])
    else:
        refuse_places(tmp_path, [name], [Path("/root")])


def test_rows_in_a_table_of_files_and_a_base_that_moved_are_places_too(run, tmp_path):
    folder = tmp_path / "runs" / "one"
    shutil.copytree(run, folder)
    (tmp_path / "out").mkdir()
    adapter = json.dumps({"base_model_name_or_path": "/elsewhere/base"})
    (tmp_path / "out" / "adapter_config.json").write_text(adapter, encoding="utf-8")
    text = re.sub(
        r"(?m)^(\[data\]\n(?:.*\n)*?)source = .*\n",
        r'\1source = {train = ["/rows/of/mine/*.csv", "b.csv"], test = "hub:/rows/test"}\n',
        (folder / "config.toml").read_text(encoding="utf-8"),
    )
    (folder / "config.toml").write_text(text, encoding="utf-8")
    paths = set(map(str, pushing.sources(Folder(folder), tmp_path / "out")))
    assert paths >= {"/rows/of/mine", "/rows/test", "/elsewhere/base"}


def pack(folder, run, monkeypatch):
    monkeypatch.setattr(pushing, "sources", lambda folder, export: [])
    return pushing.pack(folder, "me/model", run)


def test_only_what_the_export_wrote_is_packed(folder, tmp_path, monkeypatch):
    (folder / "test_predictions.jsonl").write_text("{}", encoding="utf-8")
    parcel = pack(folder, tmp_path / "run", monkeypatch)
    assert sorted(parcel.files) == sorted(FILES)
    assert yaml.safe_load(parcel.front_matter().strip("-\n")) == {"library_name": "transformers"}
    assert "4 files" in parcel.lines()[0]


def test_a_file_that_was_changed_since_is_not_packed(folder, tmp_path, monkeypatch):
    (folder / "config.json").write_text("{ }", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json"):
        pack(folder, tmp_path / "run", monkeypatch)


def test_packing_opens_no_socket(folder, tmp_path, monkeypatch):
    opened = []
    watching = [True]
    sys.addaudithook(
        lambda event, words: (
            opened.append(event) if watching and event.startswith("socket.") else None
        )
    )
    parcel = pack(folder, tmp_path / "run", monkeypatch)
    parcel.lines()
    parcel.front_matter()
    watching.clear()
    assert opened == []
