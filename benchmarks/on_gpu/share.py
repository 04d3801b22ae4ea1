"""A plugin of pytest: `--share 2/5` runs the third of five shares of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--share", default="0/1", metavar="INDEX/COUNT", help="run one share of the tests")


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the others. Neighbours, which are of a kind, go to different shares."""
    index, count = (int(number) for number in config.getoption("--share").split("/"))
    config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % count != index])
    items[:] = items[index::count]
