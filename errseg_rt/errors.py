"""The errors a user can mend: each message says what is wrong, where, and how to mend it."""


class ErrsegError(Exception):
    """Base of every error that names a fault in what the user gave; the command line turns it into exit code 2."""


class FrameError(ErrsegError, ValueError):
    """A frame or an image file that cannot be segmented."""


class BundleError(ErrsegError, ValueError):
    """A bundle that is missing, damaged, or of a format this version does not read."""


class EngineError(ErrsegError, RuntimeError):
    """An engine that cannot be used here, or a graph that gave no usable output."""


class DataError(ErrsegError, ValueError):
    """A data set, recipe or checkpoint that cannot be used."""


class SourceError(ErrsegError, OSError):
    """A video source that cannot be opened, or gives no frames."""
