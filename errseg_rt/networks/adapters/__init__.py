"""Networks of other libraries as semantic branches, by names as `torchvision:fcn_resnet50`; imported when used.

Each file of this folder knows one library: how its networks are built, with random weights and without downloads, which
of their modules are the taps, and which input they want.
"""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType

from errseg_rt.errors import DataError
from errseg_rt.networks.semantic_branch import SemanticBranch
from errseg_rt.system.lines import one_line

LIBRARIES = {
    "torchvision": ("torchvision", "NAME as deeplabv3_resnet50"),
    "smp": ("segmentation_models_pytorch", "ARCHITECTURE/ENCODER as DeepLabV3Plus/resnet34 or Unet/tu-convnext_tiny"),
    "hf": ("hugging_face", "MODEL of transformers as nvidia/segformer-b0-finetuned-cityscapes-1024-1024"),
    "monai": ("monai", "UNet"),
}
"""Files of this folder by what names begin with, and what follows the colon."""
_EXTRA = "pip install 'errseg-rt[adapters]'"


def is_name(name: str) -> bool:
    """Whether a name has the form of an adapter's network."""
    library, colon, network = name.partition(":")
    return library in LIBRARIES and bool(colon and network)


def build(name: str, classes: int) -> SemanticBranch:
    """A network of a library, with random weights.

    Args:
        name: `LIBRARY:NETWORK`, a key of `LIBRARIES` and what it says.
        classes: Number of classes.

    Raises:
        DataError: The library is not installed, or has no such network.
    """
    library, _, network = name.partition(":")
    file, form = LIBRARIES[library]
    adapter = import_module(f"{__name__}.{file}")
    try:
        branch: SemanticBranch = adapter.build(network, classes)
    except DataError as error:
        raise DataError(f"{name}: {error}; wanted {library}:{form}") from error
    return branch


def library(module: str, package: str) -> ModuleType:
    """Import a library.

    Args:
        module: What is imported.
        package: What pip calls it.

    Raises:
        DataError: It is not installed, or does not load.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise DataError(f"wants {package}, which is not installed ({error}): {_EXTRA}") from error
    except Exception as error:  # compiled libraries raise what they come upon
        raise DataError(
            f"{package} does not load here ({one_line(error)}); install the build that belongs to this torch: {_EXTRA}"
        ) from error


def described(error: Exception) -> str:
    """What a library says of a network that it cannot build, in one line and without the ends of its lists."""
    text = re.sub(r"\[.{200,}|\{.{200,}", "…", one_line(error))
    return f"{type(error).__name__}: {text}"
