"""A digest of tensors and plain values that does not depend on the layout of a file."""

import hashlib
from typing import Any

import torch
from torch import Tensor

MOST_PARTS = 1_000_000
DEEPEST = 100


def digest_of(value: Any) -> str:
    """The digest (BLAKE2b, 256 bits, in hexadecimal) of nested dictionaries, lists, plain values and dense tensors.

    Raises ValueError for anything else, for more than a million parts (lists that hold each other would have more
    than any memory), and for tensors that are larger than what they are stored in.
    """
    digest, parts = hashlib.blake2b(digest_size=32), 0

    def add(value: Any, depth: int) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS or depth > DEEPEST:
            raise ValueError("it has too many parts")
        if isinstance(value, Tensor):
            digest.update(f"T{value.dtype}{tuple(value.shape)}".encode())
            digest.update(_bytes(value))
        elif isinstance(value, dict):
            digest.update(f"D{len(value)}".encode())
            for key, part in value.items():
                add(key, depth + 1)
                add(part, depth + 1)
        elif isinstance(value, list | tuple):
            digest.update(f"L{len(value)}".encode())
            for part in value:
                add(part, depth + 1)
        elif isinstance(value, str):
            encoded = value.encode("utf-8", errors="surrogatepass")
            digest.update(f"S{len(encoded)}:".encode() + encoded)
        elif value is None or type(value) in (bool, int, float):
            digest.update(f"V{value!r};".encode())
        else:
            raise ValueError(f"a {type(value).__name__} is not a plain value")

    add(value, 0)
    return digest.hexdigest()


def _bytes(value: Tensor) -> Any:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise ValueError("it is not a dense tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("it is larger than what it is stored in")
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
