"""URLs without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HIDDEN = "***"
_USER = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s@:]*):(?P<password>[^/\s@]*(?:@[^/\s@]*)*)@", re.IGNORECASE
)
_SECRETS = re.compile(
    r"(?P<name>[?&;](?:password|passwd|pwd|pass|token|access_token|auth|key|api_?key|secret|sig|signature)=)[^&;#\s'\"]*",
    re.IGNORECASE,
)


def is_url(text: str) -> bool:
    """Whether a text is a URL, and no path; a single letter before the colon is a drive."""
    return len(urlsplit(text).scheme) > 1 and "://" in text


def without_secrets(text: str) -> str:
    """A text in which passwords within URLs, and what looks like a secret among their parameters, are `***`."""
    text = _USER.sub(rf"\g<scheme>\g<user>:{HIDDEN}@", text)
    return _SECRETS.sub(rf"\g<name>{HIDDEN}", text)
