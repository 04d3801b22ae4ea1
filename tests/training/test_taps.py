"""Kept taps: what is read back is what the frozen branch gives, in every view, and is computed once."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save

from errseg_rt.bundle.classes import CAMVID, IGNORE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.datasets import FolderData
from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.training.data import normalise
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.sized import SizedFrames
from errseg_rt.training.taps import TapStore, TapStream, View, all_views

SPEC = InputSpec(multiple=16, plus_one=True)
# A half has 11 bits of mantissa; where features cancel, its absolute step near 1 counts.
HALF = {"rtol": 2**-10, "atol": 2**-11}


@pytest.fixture
def seen(cascade):
    """Inputs of the semantic branch, as it gets them."""
    calls = []
    cascade.eval().semantic.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].clone()))
    return calls


@pytest.fixture
def frames(folder):
    """Four noisy frames of 48x64 pixels, labelled at random."""
    return FolderData(folder[0], 10, void=[10])


@pytest.fixture
def store(tmp_path, frames, cascade):
    return TapStore(tmp_path / "taps", frames, lambda _: cascade.eval(), SPEC)


def parts(batch):
    """The tensors of a batch by name."""
    return {"image": batch.image, **batch.taps._asdict(), "truth": batch.truth}


def assert_same(left, right, **tolerance):
    for (name, found), wanted in zip(parts(left).items(), parts(right).values(), strict=True):
        torch.testing.assert_close(
            found, wanted, **(tolerance or {"rtol": 0, "atol": 0}), msg=lambda text, name=name: f"{name}: {text}"
        )


@torch.no_grad()
def test_kept_taps_are_those_of_the_frame(store, frames, cascade):
    frame, labels = frames[2]
    image = torch.zeros(1, 3, 49, 65)  # padded with the mean colour
    image[0, :, :48, :64] = normalise(frame, SPEC)
    found, wanted = store.read(2), cascade.eval().taps(image)
    torch.testing.assert_close(found.image, image, **HALF)
    for name, tap in wanted._asdict().items():
        kept = getattr(found.taps, name)
        assert kept.dtype == torch.float32
        torch.testing.assert_close(kept, tap, **HALF)
    # Corners on corners: grid pixels lie four apart, the last in the padding.
    truth = np.full((13, 17), IGNORE)
    truth[:12, :16] = labels[::4, ::4]
    np.testing.assert_array_equal(found.truth[0], truth)
    assert IGNORE in labels
    assert found.truth.dtype == torch.int64


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.5])
def test_the_geometry_is_that_of_the_taps(store, scale):
    geometry, found = store.geometry(1, View(scale)), store.read(1, View(scale))
    assert geometry.input_size == tuple(found.image.shape[2:])
    assert geometry.grid_size == tuple(found.taps.low.shape[2:]) == tuple(found.truth.shape[1:])


@pytest.mark.parametrize("view", [View(), View(1.5, True)], ids=str)
def test_what_is_read_back_is_what_was_computed(store, frames, cascade, seen, view):
    first = store.read(1, view)
    assert_same(store.read(1, view), first)
    again = TapStore(store.folder, frames, lambda _: cascade, SPEC)
    assert_same(again.read(1, view), first)
    assert len(seen) == 1
    for tensor in parts(first).values():
        assert not tensor.is_inference()


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5])
def test_flipping_is_mirroring_frame_and_labels(tmp_path, store, frames, cascade, scale):
    for kind, pictures in zip(("images", "labels"), zip(*(frames[i] for i in range(4)), strict=True), strict=True):
        (tmp_path / "mirrored" / kind).mkdir(parents=True)
        for name, picture in zip(frames.names, pictures, strict=True):
            cv2.imwrite(str(tmp_path / "mirrored" / kind / f"{name}.png"), picture[:, ::-1])
    other = TapStore(
        tmp_path / "other", FolderData(tmp_path / "mirrored", 10, void=[10]), lambda _: cascade.eval(), SPEC
    )
    for index in (0, 3):
        assert_same(store.read(index, View(scale, flip=True)), other.read(index, View(scale)))
        assert (store.read(index, View(scale)).image != store.read(index, View(scale, flip=True)).image).any()


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "mirrored"])
@pytest.mark.parametrize(("scale", "size"), [(0.5, (33, 33)), (1.0, (49, 65)), (1.5, (81, 97)), (2.0, (97, 129))])
def test_labels_lie_on_what_they_label(tmp_path, cascade, scale, size, flip):
    # Blocks of 8 pixels, each in the colour of its class.
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 11, (6, 8), np.uint8), np.ones((8, 8), np.uint8))
    for kind, picture in (("images", CAMVID.palette_bgr()[labels]), ("labels", labels)):
        (tmp_path / "blocks" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "blocks" / kind / "a.png"), picture)
    batch = TapStore(tmp_path / "taps", FolderData(tmp_path / "blocks", 11), lambda _: cascade.eval(), SPEC).read(
        0, View(scale, flip)
    )
    assert batch.image.shape == (1, 3, *size)
    truth = batch.truth[0]
    assert truth.shape == tuple(-(-side // 4) for side in size)
    colours = normalise(CAMVID.palette_bgr()[None], SPEC)[:, 0].T  # [256, 3]
    under = batch.image[0, :, ::4, ::4]
    inside = truth != IGNORE
    content = [round(side * scale) for side in labels.shape]
    assert inside[: -(-content[0] // 4), : -(-content[1] // 4)].all()
    assert inside.sum() == np.prod([-(-side // 4) for side in content])
    # Nearest of all colours, where resampling has not mixed two.
    distance = (under[None] - colours[:11, :, None, None]).abs().amax(dim=1)
    pure = distance.amin(dim=0) < 0.02
    assert (pure & inside).float().mean() > 0.3
    np.testing.assert_array_equal(distance.argmin(dim=0)[pure & inside], truth[pure & inside])


def test_filling_computes_every_view_once(store, frames, cascade, seen):
    views = all_views(ViewsConfig(scales=(1.0, 0.5), flip=True))
    assert [tuple(view) for view in views] == [(1.0, False), (1.0, True), (0.5, False), (0.5, True)]
    bars = []

    def progress(items, title, total):
        bars.append((title, total))
        return items

    store.fill(views, progress)
    assert bars == [("taps of the frozen branch", 4)]
    assert len(seen) == 16
    assert len({image.numpy().tobytes() for image in seen}) == 16
    store.fill(iter(views), progress)
    TapStore(store.folder, frames, lambda _: cascade, SPEC).fill(views, progress)
    for index, view in itertools.product(range(4), views):
        store.read(index, view)
    assert len(seen) == 16
    next(store.folder.iterdir()).unlink()
    store.fill(views, progress)
    assert len(seen) == 17


def test_without_flips_and_with_one_scale_there_is_one_view():
    assert all_views(ViewsConfig(flip=False)) == [View()]


def test_each_frame_is_seen_by_the_network_of_its_fold(tmp_path, frames, recipe):
    cascades = []
    for seed in range(2):
        torch.manual_seed(seed)
        cascades.append(Cascade(recipe.cascade).eval())
    seen_by = [cascades[index] for index in (0, 1, 1, 0)]
    mixed = TapStore(tmp_path / "mixed", frames, seen_by.__getitem__, SPEC)
    pure = [TapStore(tmp_path / f"pure{seed}", frames, lambda _, seed=seed: cascades[seed], SPEC) for seed in range(2)]
    for index, seed in enumerate((0, 1, 1, 0)):
        assert_same(mixed.read(index), pure[seed].read(index))
        assert (mixed.read(index).taps.deep != pure[1 - seed].read(index).taps.deep).any()


@pytest.mark.parametrize("keep", [0, 7, 1000, -1], ids=lambda n: f"cut_to_{n}")
def test_damaged_file_is_named(store, keep):
    store.read(3, View(1.5, True))
    (path,) = store.folder.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{path}: damaged \(.*\); remove it, and it is computed again"):
        store.read(3, View(1.5, True))
    path.unlink()
    store.read(3, View(1.5, True))
    assert path.exists()


def test_full_disk_leaves_no_half_written_taps(store, monkeypatch):
    def fill_the_disk(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            store.read(0)
    assert list(store.folder.iterdir()) == []
    assert_same(store.read(0), store.read(0))


VIEWS = ViewsConfig(scales=(0.5, 1.0), flip=True)


def test_stream_draws_frames_scales_and_flips_alike(store, monkeypatch):
    drawn = []
    one = store.read(0)
    monkeypatch.setattr(store, "read", lambda index, view: drawn.append((index, *view)) or one)
    stream = TapStream(store, VIEWS, batch=2, seed=[3, 1], start=0, length=200)
    for number in range(len(stream)):
        stream[number]
        first, second = drawn[-2:]
        assert first[1] == second[1]  # one batch has one scale
    assert len(drawn) == 400
    counts = Counter(drawn)
    assert counts.keys() == set(itertools.product(range(4), VIEWS.scales, (False, True)))
    # 16 kinds of 25 each; scales are drawn 200 times, in pairs.
    assert 8 <= min(counts.values()) <= max(counts.values()) <= 50
    drawn.clear()
    straight = TapStream(store, ViewsConfig(flip=False), batch=2, seed=[3, 1], start=0, length=30)
    for number in range(len(straight)):
        straight[number]
    assert {asked[1:] for asked in drawn} == {(1.0, False)}


def test_batches_are_the_drawn_views_side_by_side(store, monkeypatch):
    drawn = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda *asked: drawn.append(asked) or read(*asked))
    batch = TapStream(store, VIEWS, batch=3, seed=[3, 1], start=5, length=1)[0]
    alone = [read(*asked) for asked in drawn]
    assert len(alone) == 3
    for name, tensor in parts(batch).items():
        torch.testing.assert_close(tensor, torch.cat([parts(one)[name] for one in alone]), rtol=0, atol=0)


def test_a_batch_depends_on_its_number_alone(store):
    whole = TapStream(store, VIEWS, batch=2, seed=[3, 1], start=0, length=8)
    forward = [whole[index] for index in range(8)]
    for number in (7, 2, 5):
        resumed = TapStream(store, VIEWS, batch=2, seed=[3, 1], start=number, length=8 - number)
        assert len(resumed) == 8 - number
        assert_same(resumed[0], forward[number])
        assert_same(whole[number], forward[number])
    images = {batch.image.numpy().tobytes() for batch in forward}
    assert len(images) >= 7  # of 256 pairs of views, one may come again
    other = TapStream(store, VIEWS, batch=2, seed=[3, 2], start=0, length=8)
    assert len(images | {other[index].image.numpy().tobytes() for index in range(8)}) >= 13


MIXED = {"a": (48, 64), "b": (64, 48), "c": (48, 64), "d": (40, 60), "e": (96, 64), "f": (64, 48), "g": (48, 64)}
"""Landscapes, portraits, one that becomes a landscape of the others by its padding, and one that is like no other."""


@pytest.fixture
def mixed(tmp_path, cascade):
    """Frames of several sizes and both orientations, each in a grey of its own."""
    for number, (name, size) in enumerate(MIXED.items()):
        for kind, picture in (
            ("images", np.full((*size, 3), 20 * number, np.uint8)),
            ("labels", np.zeros(size, np.uint8)),
        ):
            (tmp_path / "mixed" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "mixed" / kind / f"{name}.png"), picture)
    return TapStore(tmp_path / "taps", FolderData(tmp_path / "mixed", 11), lambda _: cascade.eval(), SPEC)


@pytest.fixture
def draws(mixed, monkeypatch):
    """Frames and views that are read; nothing is computed."""
    drawn, one = [], mixed.read(0)
    monkeypatch.setattr(mixed, "read", lambda index, view: drawn.append((index, view)) or one)
    return drawn


def test_a_batch_of_frames_of_several_sizes_has_inputs_of_one(mixed, monkeypatch):
    drawn, read = [], mixed.read
    monkeypatch.setattr(mixed, "read", lambda *asked: drawn.append(asked) or read(*asked))
    stream = TapStream(mixed, VIEWS, batch=3, seed=[3, 1], start=0, length=20)
    sizes = set()
    for number in range(len(stream)):
        batch = stream[number]
        assert len(batch.image) == 3
        for asked, image in zip(drawn[-3:], batch.image, strict=True):
            torch.testing.assert_close(image, read(*asked).image[0], rtol=0, atol=0)
        sizes.add(tuple(batch.image.shape[2:]))
    assert len(sizes) >= 5  # of three kinds of frames, at two scales


def test_every_frame_of_several_sizes_is_as_likely(mixed, draws):
    stream = TapStream(mixed, ViewsConfig(scales=(1.0,), flip=False), batch=3, seed=[7], start=0, length=700)
    for number in range(len(stream)):
        stream[number]
        assert len({mixed.geometry(index, view).input_size for index, view in draws[-3:]}) == 1
    counts = Counter(index for index, _ in draws)
    # 2100 draws of 7 frames; those of a batch depend on each other, so that its three count as one.
    assert all(abs(counts[index] / 2100 - 1 / 7) <= 4 * (1 / 7 * 6 / 7 / 700) ** 0.5 for index in range(7))


def test_a_batch_of_several_sizes_depends_on_its_number_alone(mixed, draws):
    for number in (0, 3, 11):
        TapStream(mixed, VIEWS, batch=4, seed=[3, 1], start=number, length=20 - number)[0]
        TapStream(mixed, VIEWS, batch=4, seed=[3, 1], start=0, length=20)[number]
        assert draws[-8:-4] == draws[-4:]


def test_on_frames_of_one_size_the_draws_are_those_that_they_always_were(store, monkeypatch):
    # By definition: the scale, then which views are mirrored, then the frames.
    drawn, one = [], store.read(0)
    monkeypatch.setattr(store, "read", lambda index, view: drawn.append((index, view)) or one)
    stream = TapStream(store, VIEWS, batch=3, seed=[3, 1], start=40, length=30)
    for number in range(30):
        stream[number]
        rng = np.random.default_rng([3, 1, 40 + number])
        scale = float(rng.choice(VIEWS.scales))
        flips, frames = rng.random(3) < 0.5, rng.integers(4, size=3)
        wanted = [(int(frame), View(scale, bool(flip))) for frame, flip in zip(frames, flips, strict=True)]
        assert drawn[-3:] == wanted


@pytest.mark.parametrize("other", [{"a": torch.zeros(1)}, {}], ids=["another", "empty"])
def test_taps_of_something_else_are_named(store, other):
    store.read(0)
    (path,) = store.folder.iterdir()
    path.write_bytes(save(other))
    with pytest.raises(
        DataError, match=rf"{path}: damaged \(no taps of an input of 49x65\); remove it, and it is comp"
    ):
        store.read(0)


def test_taps_of_another_size_are_named(store, mixed):
    store.read(0)
    (path,) = store.folder.iterdir()
    mixed.read(4)
    (mixed.folder / "00004_1.safetensors").replace(path)
    with pytest.raises(
        DataError, match=r"damaged \(no taps of an input of 49x65\); remove it, and it is computed again"
    ):
        store.read(0)


def test_frames_that_make_up_a_share_are_drawn_by_it(mixed, draws):
    mixed.frames = SizedFrames(list(MIXED), mixed.sizes, mixed.frames.__getitem__).weighed([1, 2], 0.6)
    stream = TapStream(mixed, ViewsConfig(scales=(1.0,), flip=False), batch=1, seed=[7], start=0, length=2000)
    for number in range(len(stream)):
        stream[number]
    counts = Counter(index for index, _ in draws)
    wanted = {index: 0.3 if index in (1, 2) else 0.4 / 5 for index in range(7)}
    assert all(
        abs(counts[index] / 2000 - share) <= 4 * (share * (1 - share) / 2000) ** 0.5 for index, share in wanted.items()
    )
    draws.clear()
    stream = TapStream(mixed, VIEWS, batch=3, seed=[7], start=0, length=30)
    for number in range(len(stream)):
        stream[number]
        assert len({mixed.geometry(index, view).input_size for index, view in draws[-3:]}) == 1


@pytest.mark.parametrize(("indices", "share"), [([1], 0.0), ([], 0.5), (range(7), 0.5)])
def test_no_share_is_all_alike(mixed, indices, share):
    assert SizedFrames(list(MIXED), mixed.sizes, mixed.frames.__getitem__).weighed(indices, share).shares is None
