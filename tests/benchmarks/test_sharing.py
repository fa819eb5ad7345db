"""Two runs at once: the slower one counts, against half of what it has alone."""

import sharing


class Child:
    def __init__(self, windows):
        self.windows = list(windows)

    def send(self, seconds):
        self.seconds = seconds

    def read(self):
        return {"tokens": self.windows.pop(0) * self.seconds, "seconds": self.seconds}

    def ask(self, seconds):
        self.send(seconds)
        return self.read()


def test_a_round_is_one_alone_and_then_two_at_once():
    row = sharing.measure((Child([100, 48]), Child([45])), 2.0)
    assert row == {"alone": 100, "first": 48, "second": 45}
    assert sharing.share(row) == 0.9


def test_the_table_compares_each_round_with_its_own():
    rounds = {
        "spinning": [{"alone": 100.0, "first": 25.0, "second": 30.0}] * 2,
        "sleeping": [
            {"alone": 98.0, "first": 49.0, "second": 49.0},
            {"alone": 102.0, "first": 51.0, "second": 51.0},
        ],
    }
    lines = sharing.table(rounds).splitlines()
    assert "| 25 and 30 | 0.50 (0.50 to 0.50) |" in lines[2]
    assert "1.00 (0.98 to 1.02)" in lines[3]
    assert "1.00 (1.00 to 1.00) |" in lines[3]


def test_only_the_spinning_run_is_told_how_to_wait():
    assert sharing.ENVIRONMENTS[sharing.SLEEPING] == {}
    assert "GOMP_SPINCOUNT" in sharing.ENVIRONMENTS[sharing.SPINNING]
