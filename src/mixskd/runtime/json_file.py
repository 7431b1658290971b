"""JSON files that carry a digest of their content, so that damage to a stored score is found."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixskd.errors.text import to_json
from mixskd.runtime.files import write_text

OLDER = (None, "mixskd-summary-2")  # the formats without a digest


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace ``path`` by a file with ``values``, which name their ``format``, and their ``digest``."""
    plain = json.loads(to_json(values))
    write_text(path, json.dumps({**plain, "digest": digest_of_values(plain)}, indent=2) + "\n")


def is_as_written(values: Any) -> bool:
    """Whether ``values``, read from a file, have the digest that :func:`write_json` stored, or an older format."""
    if not isinstance(values, dict) or ("digest" not in values and values.get("format") in OLDER):
        return True
    return values.get("digest") == digest_of_values({key: value for key, value in values.items() if key != "digest"})


def digest_of_values(values: Mapping[str, Any]) -> str:
    """The digest (BLAKE2b, 256 bits, in hexadecimal) of plain values, whatever the order of their keys."""
    return digest_of_text(json.dumps(values, sort_keys=True))


def digest_of_text(text: str) -> str:
    """The digest (BLAKE2b, 256 bits, in hexadecimal) of ``text``."""
    return hashlib.blake2b(text.encode("utf-8", errors="surrogateescape"), digest_size=32).hexdigest()
