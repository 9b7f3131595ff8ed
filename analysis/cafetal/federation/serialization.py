"""What Parsl's workers are sent around a function, so that it is measured there. It goes by value, and stands alone."""

import io
import pickle
from typing import Any


class Plain(pickle.Pickler):
    """Pickles what has none but plain types."""

    def reducer_override(self, part: object) -> Any:
        """Asked for all else."""
        raise pickle.PicklingError


def pack(value: object) -> bytes:
    """Return a value as bytes: by Python's pickle if it has none but plain types, else as Parsl does it.

    Parsl uses dill, which is written in Python and takes three times as long; functions and classes need it. Those of
    functions that it has packed it keeps.
    """
    from parsl.serialize import facade, serialize

    content = io.BytesIO()
    others = any(type(method).__name__ != "DillSerializer" for method in facade.methods_for_data.values())
    try:
        if callable(value) or others:  # who has registered a serializer wants it to be asked
            raise pickle.PicklingError
        Plain(content, pickle.HIGHEST_PROTOCOL).dump(value)
    except pickle.PicklingError:
        otherwise: bytes = serialize(value, buffer_threshold=1 << 40)  # Parsl warns of more bytes than it is told
        return otherwise
    return content.getvalue()


def unpack(content: bytes) -> Any:
    """Return what `pack` was given.

    Parsl begins with the name of a serialiser, a pickle with a code for its protocol.
    """
    from parsl.serialize import deserialize

    return pickle.loads(content) if content[:1] == pickle.PROTO else deserialize(content)


def run_packed(packed: bytes) -> tuple[bytes, dict[str, object]]:
    """Unpack `worker.bootstrap.measured`, a function and its arguments, and call the one with the others.

    Returns the packed result and the measures, with ``bytes_out``, the size of the result. Parsl keeps functions that
    it has unpacked, so what they have cached in their globals lasts.
    """
    from parsl.serialize.facade import unpack_buffers

    measured, function, args, kwargs = (unpack(buffer) for buffer in unpack_buffers(packed))
    result, measures = measured(function, args, kwargs)
    content = pack(result)
    return content, {**measures, "bytes_out": len(content)}
