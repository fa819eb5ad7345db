"""What an extra brings is asked for by name, with the command that installs it."""

import tomllib

import pytest

from job import extras


def optional():
    project = tomllib.loads((extras.HOME / "pyproject.toml").read_text(encoding="utf-8"))
    return project["project"]["optional-dependencies"]


def pinned():
    lines = (extras.HOME / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line}


@pytest.mark.parametrize("extra", extras.MODULES)
def test_every_extra_that_a_verb_needs_stands_in_pyproject_and_is_pinned(extra):
    names = {word.partition(">=")[0] for word in optional()[extra]}
    assert set(extras.MODULES[extra]) <= {name.replace("-", "_") for name in names}
    assert names <= pinned()


@pytest.mark.parametrize("extra", extras.MODULES)
def test_an_extra_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch, extra):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -c .*constraints.txt '") as caught:
        extras.need_extra(extra, "this")
    for word in optional()[extra]:
        assert f"'{word}'" in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [("serve", "fastapi, uvicorn, which are not installed; install them with"),
     ("peft", "peft, which is not installed; install it with")],
)  # fmt: skip
def test_one_package_is_missing_or_several_are(monkeypatch, extra, sentence):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"^this needs {sentence}"):
        extras.need_extra(extra, "this")


def test_an_extra_that_is_there_is_no_error():
    extras.need_extra("gguf", "this")
