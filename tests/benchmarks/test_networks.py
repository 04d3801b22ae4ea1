"""The parts of a cascade that are timed one by one are those of the whole."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.networks import Decoder, ErrorPart, build  # noqa: E402


@pytest.mark.parametrize("name", ["squeezenas", "light-unet"])
def test_parts_are_those_of_the_cascade(name: str) -> None:
    cascade = build(name)
    torch.nn.init.ones_(cascade.error.head.weight)  # zero at first, as if the branch saw nothing
    image = torch.randn(1, 3, 33, 65, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        taps = cascade.taps(image)
        error_logit = ErrorPart(cascade)(image, taps.logits, taps.low, taps.mid, taps.high)
        assert torch.equal(error_logit, cascade.error(image, taps))
        for found, wanted in zip(
            Decoder(cascade)(taps.mid, taps.deep, taps.high), cascade.detail.decode(taps), strict=True
        ):
            assert torch.equal(found, wanted)
