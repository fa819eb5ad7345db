"""Hides packages that a bare GPU machine lacks. Python reads this file at its start where the
folder is on PYTHONPATH, in every process of a dry run."""

import sys

HIDDEN = {"datasets", "pydantic", "pydantic_core", "tomli_w"}


class Hiding:
    """A finder that does not find them, neither as modules nor as installed packages."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        find = getattr(self.finder, "find_distributions", lambda *context: ())
        return (
            distribution
            for distribution in find(*context)
            if distribution.metadata["Name"].replace("-", "_") not in HIDDEN
        )


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
