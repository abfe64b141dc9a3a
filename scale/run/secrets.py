"""Secrets of the environment, such as WANDB_API_KEY: a run may use them, and none of its files may have them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

NAME = re.compile(r"(?:^|_)(?:TOKEN|\w*KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:_|$)", re.I)
"""Names of variables whose values are secrets."""

SHORTEST = 8
"""Characters of a secret; what is shorter could stand in any text."""


def is_secret(name: str) -> bool:
    """Return whether a variable of this name holds a secret.

    Examples
    --------
    >>> [is_secret(x) for x in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "TOKENIZERS_PARALLELISM")]
    [True, True, True, False]
    """
    return NAME.search(name) is not None


def secrets_of(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the secrets in an environment, longest first, and the lines of those that have several.

    The path of a file is none.
    """
    values = {x for name, value in environ.items() if is_secret(name) for x in (value, *value.splitlines())}
    found = (x for x in values if len(x) >= SHORTEST and not (x.startswith("/") and os.path.exists(x)))
    return sorted(found, key=len, reverse=True)


def hide(text: str, secrets: Sequence[str]) -> str:
    """Return a text with stars for the secrets in it.

    Examples
    --------
    >>> hide("401 for hf_abcdefgh", ["hf_abcdefgh"])
    '401 for ***********'
    """
    for secret in secrets:
        text = text.replace(secret, "*" * len(secret))
    return text


def hide_in_bytes(content: bytes, secrets: Sequence[str]) -> bytes:
    """Return a part of a file with stars for the secrets in it, of the same length."""
    for secret in map(os.fsencode, secrets):
        content = content.replace(secret, b"*" * len(secret))
    return content
