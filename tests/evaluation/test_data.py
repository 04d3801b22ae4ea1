"""The old way to `open_labelled` still leads there, and says which is the new one."""

from __future__ import annotations

import pytest

from errseg_rt import datasets


def test_the_old_import_works_and_names_the_new_place() -> None:
    with pytest.warns(DeprecationWarning, match="from errseg_rt.datasets import open_labelled") as warned:
        from errseg_rt.evaluation.data import open_labelled
    assert open_labelled is datasets.open_labelled
    assert [warning.filename for warning in warned] == [__file__]  # whose line is to be changed


def test_nothing_else_is_there() -> None:
    from errseg_rt.evaluation import data

    with pytest.raises(AttributeError, match=r"module 'errseg_rt.evaluation.data' has no attribute 'nothing'"):
        _ = data.nothing
