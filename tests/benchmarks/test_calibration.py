"""benchmarks/calibration.py reads from predictions what the run measured."""

import json

import calibration
import pytest


def write_run(folder, temperature, rows):
    (folder / "test_predictions.jsonl").write_text(
        "\n".join(map(json.dumps, rows)), encoding="utf-8"
    )
    sure = [max(row["probabilities"].values()) for row in rows]
    right = [row["label"] == row["predicted"] for row in rows]
    assert len(set(sure)) == 1  # one bin, before and after
    share = sure[0] ** temperature / (sure[0] ** temperature + (1 - sure[0]) ** temperature)
    accuracy = sum(right) / len(rows)
    test = {"ece_after": abs(sure[0] - accuracy), "ece_before": abs(share - accuracy)}
    result = {"calibration": {"temperature": temperature, "test": test}}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_the_temperature_is_undone(tmp_path, capsys):
    rows = [
        {
            "row": f"a.csv:{i}", "text": "x", "label": "pos" if i % 4 else "neg",
            "predicted": "pos", "probabilities": {"neg": 0.2, "pos": 0.8},
        }
        for i in range(40)
    ]  # fmt: skip
    write_run(tmp_path, 2.0, rows)
    assert calibration.main([str(tmp_path)]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")]
    assert cells[2:4] == ["40", "2.000"]
    assert cells[7].startswith("0.0500 (")  # 0.8 said, 0.75 right
    assert cells[5].startswith(f"{0.64 / 0.68 - 0.75:.4f} (")


def test_a_run_of_numbers_has_none(tmp_path):
    (tmp_path / "result.json").write_text('{"calibration": null}', encoding="utf-8")
    with pytest.raises(ValueError, match="was not calibrated"):
        calibration.main([str(tmp_path)])
