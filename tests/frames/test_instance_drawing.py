"""Instances in a picture: a shade each, within a line."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID
from errseg_rt.frames.instance_drawing import colored, outline, outlined, shades
from errseg_rt.frames.instances import Instances


def instances(index, classes):
    return Instances.of(np.asarray(index), classes, np.linspace(1, 0.5, len(classes)), CAMVID)


def test_an_outline_lies_within_each_instance_where_another_begins():
    index = np.zeros((6, 9), int)
    index[:4, :3], index[:4, 3:7] = 1, 2
    found = outline(instances(index, [3, 3]))
    wanted = np.zeros((6, 9), bool)
    wanted[:4, 2:4] = True  # where they touch
    wanted[3, :7] = True  # above nothing
    wanted[:4, 6] = True
    np.testing.assert_array_equal(found, wanted)  # the frame's edge is no border


def test_lines_of_large_frames_are_wider():
    index = np.zeros((1000, 1100), int)
    index[200:500, 300:700] = 1
    assert outline(instances(index, [3]))[202, 500] == 0
    wide = outline(instances(np.kron(index, np.ones((2, 2), int)), [3]))
    assert wide[401, 1000]
    assert not wide[399, 1000]


def test_shades_differ_and_nothing_else_changes():
    index = np.arange(1, 41).reshape(5, 8).repeat(3, axis=0).repeat(3, axis=1)
    index[:3, :3] = 0
    found = instances(index, [3] * 40)
    colors = np.full((*index.shape, 3), 7, np.uint8)
    picture = colored(colors, found)
    assert (picture[:3, :3] == 7).all()
    assert len(found) == 39
    assert np.abs(np.diff(shades(found).astype(int), axis=0)).sum(axis=1).min() > 60  # from one to the next
    assert (colors == 7).all()
    line = outlined(colors, found)
    assert (line[outline(found)] == 255).all()
    assert (line[~outline(found)] == 7).all()


@pytest.mark.parametrize("shape", [(1, 1), (4, 7)])
def test_no_instance_changes_nothing(shape):
    none = instances(np.zeros(shape, int), [])
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    np.testing.assert_array_equal(colored(picture, none), picture)
    np.testing.assert_array_equal(outlined(picture, none), picture)
    assert shades(none).shape == (0, 3)


def test_one_pixel():
    found = instances([[0, 1, 0]], [3])
    assert outline(found).tolist() == [[False, True, False]]
