"""The processor's ``postprocess``, which runs at home on what was merged."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from cafetal.errors import ProcessorError
from cafetal.results.run_folder import MERGED, read_merged
from cafetal.runner.processors import load_processor


def apply(folder: Path, processor: str, arguments: Mapping[str, object]) -> object:
    """Return what the ``postprocess`` of a processor makes of the merged output in a folder.

    Raises:
        ProcessorNotFound: if there is no such processor.
        OutputError: if the folder holds nothing that was merged.
        ProcessorError: if ``postprocess`` fails.
    """
    instance = load_processor(processor, arguments)
    merged = read_merged(folder)
    if not callable(getattr(instance, "postprocess", None)):
        return merged
    try:
        result = instance.postprocess(merged)
        return merged if result is None else result  # as Runner does
    except (Exception, KeyboardInterrupt) as error:
        raise failed(instance, error, folder) from error


def failed(instance: object, error: BaseException, folder: Path) -> ProcessorError:
    """Return the error for a ``postprocess`` that has failed: nothing but that is lost."""
    lines = traceback.format_exception(error)
    return ProcessorError(
        f"The postprocess of {type(instance).__name__} failed: {type(error).__name__}: {error}\n\n"
        f"{''.join(lines).rstrip()}\n\n"
        f"The processing is done, and the merged output is saved in {folder / MERGED}. Fix postprocess, then run "
        f"`cafetal postprocess {folder}`.",
    )
