"""Partials as bytes: a tree of plain values in JSON, and the arrays behind it. Nothing in them is code.

What has no plain form (classes of the user's own, say) is pickled where the site is trusted, and refused where it is
not. `decode` never unpickles anything unless it is told to.
"""

from __future__ import annotations

import hashlib
import json

from .decoder import Reader
from .encoder import Writer
from .exact import lift
from .plain_forms import Garbled, NotPlain

__all__ = ["Garbled", "NotPlain", "decode", "encode", "fingerprint", "modules_of"]


def encode(value: object, *, trusted: bool) -> bytes:
    """Nodes of `exact`, or any plain value, as bytes.

    Raises:
        NotPlain: if something needs a pickle, and the site is not ``trusted``; it names the class and where it is.
    """
    writer = Writer(trusted)
    tree = json.dumps(writer.plain(value, ()), separators=(",", ":")).encode()
    return b"%d\n%b%b" % (len(tree), tree, b"".join(writer.buffers))


def modules_of(value: object, *, trusted: bool) -> dict[str, str]:
    """Return the modules that are needed to read pickles in a value, each with the place in the output.

    Raises:
        NotPlain: if something cannot be encoded; it names the class and where it is.
    """
    writer = Writer(trusted)
    writer.plain(value, ())
    return writer.modules


def decode(content: bytes, *, trusted: bool) -> object:
    """Return the value that was encoded.

    Raises:
        Garbled: if these bytes are none of ours, or hold a pickle and the site is not ``trusted``.
    """
    try:
        length, _, rest = content.partition(b"\n")
        size = int(length)
        if not 0 <= size <= len(rest):
            raise ValueError(f"the tree has {size} bytes, but only {len(rest)} follow")
        return Reader(memoryview(rest)[size:], trusted).value(json.loads(rest[:size]))
    except Garbled:
        raise
    except Exception as error:  # whatever hostile bytes can bring about in JSON, numpy and boost-histogram
        raise Garbled(f"A partial cannot be read ({type(error).__name__}: {error}).") from error


def fingerprint(value: object) -> str:
    """Return SHA-256 of an output: the same for the same content. Of what has no plain form only the class counts."""
    writer = Writer(trusted=False, name_others=True)
    tree = json.dumps(writer.plain(lift(value, ()), ()), separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(tree.encode())
    for buffer in writer.buffers:
        digest.update(buffer)
    return digest.hexdigest()
