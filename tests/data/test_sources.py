import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from data.hub import load_hub
from data.sources import open_source


def write(folder, name, content="text,label\na,1\nb,0\n"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def open_plain(source, **more):
    return open_source(source, more.get("config"), more.get("revision"), more.get("splits"))


def addresses(tables, split="train"):
    return [row.address for table in tables[split] for row in table.rows(["text", "label"])]


def test_a_glob_stands_for_its_files_in_sorted_order(tmp_path):
    write(tmp_path, "b.csv"), write(tmp_path, "a.csv"), write(tmp_path, "c.txt")
    tables, _ = open_plain(str(tmp_path / "*.csv"))
    assert addresses(tables) == ["a.csv:2", "a.csv:3", "b.csv:2", "b.csv:3"]


def test_files_of_one_name_keep_distinct_addresses(tmp_path):
    paths = [str(write(tmp_path, "x/a.csv")), str(write(tmp_path, "y/a.csv"))]
    tables, _ = open_plain(paths)
    assert addresses(tables) == [f"{path}:{line}" for path in paths for line in (2, 3)]


def test_a_missing_file_names_its_nearest_neighbour(tmp_path):
    write(tmp_path, "reviews.csv")
    with pytest.raises(ValueError, match=r"no file .*did you mean 'reviews\.csv'"):
        open_plain(str(tmp_path / "review.csv"))


def test_a_name_that_is_far_off_is_no_guess(tmp_path):
    (tmp_path / "docs").mkdir()
    with pytest.raises(ValueError, match="there is no file") as caught:
        open_plain(str(tmp_path / "nope.csv"))
    assert "did you mean" not in str(caught.value)


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no file matches"):
        open_plain(str(tmp_path / "*.csv"))


def test_a_folder_names_the_two_ways_to_mean_it(tmp_path):
    with pytest.raises(ValueError, match=r"\*\.csv\), or write hub:"):
        open_plain(str(tmp_path))


def test_a_package_file_is_read_without_importing_the_package(tmp_path, monkeypatch):
    write(tmp_path, "openloop_fake_reviews/__init__.py", "raise RuntimeError('imported')")
    write(tmp_path, "openloop_fake_reviews/data/a.csv")
    monkeypatch.syspath_prepend(str(tmp_path))
    tables, _ = open_plain("package:openloop_fake_reviews/data/a.csv")
    assert addresses(tables) == ["a.csv:2", "a.csv:3"]
    assert "openloop_fake_reviews" not in sys.modules


def test_a_missing_package_names_the_command_that_installs_it():
    with pytest.raises(ValueError, match="pip install --no-deps some-reviews"):
        open_plain("package:some_reviews/data/a.csv")


def test_a_missing_file_in_a_package_names_its_nearest_neighbour(tmp_path, monkeypatch):
    write(tmp_path, "openloop_fake_two/__init__.py", "")
    write(tmp_path, "openloop_fake_two/combined.csv")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"did you mean 'combined\.csv'"):
        open_plain("package:openloop_fake_two/combine.csv")


def test_a_table_of_sources_gives_named_splits(tmp_path):
    source = {"train": str(write(tmp_path, "a.csv")), "test": str(write(tmp_path, "b.csv"))}
    tables, _ = open_plain(source)
    assert list(tables) == ["train", "test"]
    assert addresses(tables, "test") == ["b.csv:2", "b.csv:3"]


def test_a_misspelt_split_names_its_nearest_neighbour(tmp_path):
    source = {"train": str(write(tmp_path, "a.csv")), "validatoin": "b.csv"}
    with pytest.raises(ValueError, match="did you mean 'validation'"):
        open_plain(source)


def test_one_file_under_two_splits_is_refused(tmp_path):
    path = str(write(tmp_path, "a.csv"))
    with pytest.raises(ValueError, match="stands under train and under test"):
        open_plain({"train": path, "test": path})


def test_hub_options_beside_a_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.revision: got 'main', but only hub"):
        open_plain(str(write(tmp_path, "a.csv")), revision="main")


@pytest.fixture
def hub_folder(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    whole = datasets.DatasetDict(train=part, test=part, unsupervised=part)
    whole.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_hub_set_keeps_its_splits_and_label_names(hub_folder):
    tables, notes = open_plain(f"hub:{hub_folder}")
    assert list(tables) == ["train", "test"]
    assert tables["train"][0].class_names == {"label": ("neg", "pos")}
    assert addresses(tables, "test")[1].endswith("saved/test[1]")
    assert notes == [f"not used: split unsupervised (2 rows) of hub:{hub_folder}"]


def test_a_folder_of_files_is_loaded_as_a_hub_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write(tmp_path, "set/train.csv"), write(tmp_path, "set/test.csv")
    tables, _ = open_plain(f"hub:{tmp_path / 'set'}")
    assert list(tables) == ["train", "test"]


def test_splits_of_a_hub_set_are_mapped(hub_folder):
    tables, _ = open_plain(f"hub:{hub_folder}", splits={"train": "train", "validation": "test"})
    assert addresses(tables, "validation")[0].endswith("/test[0]")


def test_an_unknown_hub_split_names_those_there_are(hub_folder):
    with pytest.raises(ValueError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
        open_plain(f"hub:{hub_folder}", splits={"train": "tests"})


def test_a_hub_set_in_a_table_of_sources_gives_the_split_of_that_name(hub_folder, tmp_path):
    tables, _ = open_plain({"train": str(write(tmp_path, "a.csv")), "test": f"hub:{hub_folder}"})
    assert addresses(tables, "test")[0].endswith("saved/test[0]")


def test_an_unreachable_hub_is_one_line_that_names_the_ways_out():
    with pytest.raises(ValueError, match="could not be loaded") as caught:
        load_hub("no-such-owner/no-such-set", None, None)
    message = str(caught.value)
    assert "\n" not in message
    for way in ("local files", "package:", "HF_ENDPOINT", "another machine"):
        assert way in message


def test_files_need_no_network(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40)))
    code = (
        "import socket, sys\n"
        "def refuse(*args, **named): raise SystemExit('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from data.prepare import DataArgs, load_data\n"
        f"print(len(load_data(DataArgs({str(path)!r}), Path({str(tmp_path)!r})).splits['train']))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=root
    )
    assert done.stdout.strip() == "32", done.stderr
