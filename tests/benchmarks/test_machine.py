"""The fingerprint knows the code that is measured."""

from machine import FILES, code_digest, usable_cores


def test_measured_code_moves_the_digest_and_other_files_do_not(tmp_path):
    for name in ("engine", "benchmarks"):
        (tmp_path / name).mkdir()
    for name in FILES:
        (tmp_path / "benchmarks" / name).write_text("", encoding="utf-8")
    (tmp_path / "engine" / "loop.py").write_text("a = 1\n", encoding="utf-8")
    first = code_digest(tmp_path)
    (tmp_path / "engine" / "notes.md").write_text("words", encoding="utf-8")
    (tmp_path / "benchmarks" / "tables.py").write_text("b = 1\n", encoding="utf-8")
    assert code_digest(tmp_path) == first
    (tmp_path / "engine" / "loop.py").write_text("a = 2\n", encoding="utf-8")
    assert code_digest(tmp_path) != first
    before = code_digest(tmp_path)
    (tmp_path / "engine" / "kernels.h").write_text("// c", encoding="utf-8")
    second = code_digest(tmp_path)
    assert second != before
    (tmp_path / "benchmarks" / "stock.py").write_text("c = 1\n", encoding="utf-8")
    assert code_digest(tmp_path) != second


def test_there_is_a_core_to_run_on():
    assert usable_cores() >= 1
