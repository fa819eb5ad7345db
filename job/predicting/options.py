"""Options that every script has which answers with a finished run."""

from argparse import ArgumentParser
from pathlib import Path


def add_decision_options(parser: ArgumentParser) -> None:
    """How answers are decided, where not as the run did."""
    parser.add_argument("--unsure", type=float, metavar="P", help="answers less sure than P are "
                        "unsure (default: as the run's decide.min_precision asked)")  # fmt: skip
    parser.add_argument("--threshold", action="append", default=[], metavar="[LABEL=]P",
                        help="a label holds above P (one of several, or of two classes; "
                        "without LABEL all, or the second)")  # fmt: skip


def add_opening_options(parser: ArgumentParser) -> None:
    """How the run is opened to answer: its base, what is allowed, and the device."""
    add_trust_options(parser)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: as in the run)")


def add_trust_options(parser: ArgumentParser) -> None:
    """Where the base of the run is, and what is allowed."""
    parser.add_argument("--base", type=Path, metavar="PATH",
                        help="where the base model of the run's adapter is now")  # fmt: skip
    parser.add_argument("--allow-code", action="store_true",
                        help="run code of your own (head, method)")  # fmt: skip
    parser.add_argument("--allow-drift", action="store_true",
                        help="go on although files of the run were changed")  # fmt: skip
    parser.add_argument("--allow-network", action="store_true",
                        help="fetch the base of the run's adapter from its hub")  # fmt: skip
