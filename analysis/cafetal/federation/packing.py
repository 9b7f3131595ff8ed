"""What Parsl's workers are sent around a function, so that it is measured there. It goes by value, and stands alone."""

from typing import Any


def run_packed(packed: bytes) -> tuple[bytes, dict[str, Any]]:
    """Unpack `worker.trampoline.measured`, a function and its arguments, and call the one with the others.

    Returns the packed result and the measures, with ``bytes_out``, the size of the result. Parsl keeps functions that
    it has unpacked, so what they have cached in their globals lasts.
    """
    from parsl.serialize import deserialize, serialize
    from parsl.serialize.facade import unpack_buffers

    measured, function, args, kwargs = (deserialize(buffer) for buffer in unpack_buffers(packed))
    result, measures = measured(function, args, kwargs)
    content = serialize(result, buffer_threshold=1 << 40)
    return content, {**measures, "bytes_out": len(content)}
