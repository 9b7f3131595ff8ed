"""Predicts the histograms of all events from those of a sample."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
from scipy.special import gammaincinv, ndtri

from cafetal.errors import OutputError
from cafetal.results.histograms import find
from cafetal.worker.atomic_files import write_bytes

PREDICTIONS = "predictions.npz"
LEVEL = 0.95
"""Confidence level of `predict`."""
_CANCELLED = 5.0
"""Times the mean weight of other bins, above which weights of both signs must have cancelled in a bin."""


def scale(histogram: Any, share: float) -> Any:
    """Return the histogram of a sample, scaled to all events, with the variances of sampling in weighted storage.

    A histogram that holds no sums (of means, say) is returned as it is: a sample of it needs no scaling.

    Args:
        share: of the events that are in the sample.
    """
    sums = _sums(histogram)
    if sums is None:
        return histogram
    values, squares = sums
    names = {name: getattr(histogram, name, None) for name in ("name", "label")}
    scaled = hist.Hist(*histogram.axes, storage=hist.storage.Weight(), **names)
    # Each event is in the sample with the probability `share`: a sum of weights w has the variance (1 - share) Σ w².
    view = scaled.view(flow=True)
    view["value"], view["variance"] = values / share, squares * (1 - share) / share**2
    return scaled


def predict(histogram: Any, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper end of an interval for what each bin holds with all events, with flow bins.

    Garwood's for a Poisson distribution (1936), at `LEVEL`, for the effective number of entries (Σ w)² / Σ w², times
    the finite population's correction √(1 - share). A bin without entries has that of no entry with the median of the
    bins' mean weights. Where weights cancel, so that there is no such number, it is the normal distribution's.
    """
    sums = _sums(histogram)
    if sums is None:
        raise TypeError(f"{type(histogram).__name__} holds no sums.")
    values, squares = sums
    filled = squares > 0
    weights = np.divide(squares, np.abs(values), out=np.full_like(values, np.inf), where=values != 0)
    typical = float(np.median(weights[filled])) if filled.any() else 1.0
    counted = (values > 0) & (weights < _CANCELLED * typical)
    weight = np.where(counted, weights, typical)
    entries = np.where(counted, values / weight, 0.0)
    tail, correction = (1 - LEVEL) / 2, np.sqrt(1 - share) / share
    low = np.where(entries > 0, entries - gammaincinv(np.maximum(entries, 1e-9), tail), 0.0) * weight
    high = (gammaincinv(entries + 1, 1 - tail) - entries) * weight
    normal = ndtri(1 - tail) * np.sqrt(squares)
    cancelled = filled & ~counted
    low, high = np.where(cancelled, normal, low), np.where(cancelled, normal, high)
    return values / share - low * correction, values / share + high * correction


def scale_all(output: object, share: float) -> object:
    """Return an output in which all histograms are scaled, however deeply nested in mappings; other values stay."""
    if isinstance(output, bh.Histogram):
        return scale(output, share)
    if isinstance(output, Mapping):
        return {key: scale_all(value, share) for key, value in output.items()}
    return output


def scaled_to_all(output: object, share: float | None, *, postprocessed: bool) -> tuple[object, str]:
    """Return the output of a sample scaled to all events, and a mark for plots. Other output stays as it is.

    Args:
        postprocessed: whether ``postprocess`` has changed it: it may have scaled it, so nobody else may.
    """
    if share is None:
        return output, ""
    if postprocessed:
        return output, f"Sample: {100 * share:.3g}% of the events, as postprocess left it"
    return scale_all(output, share), f"Sample: {100 * share:.3g}% of the events, scaled"


def save_predictions(folder: Path, output: object, share: float | None) -> None:
    """Write the intervals of all histograms of a sample: arrays ``NAME/low`` and ``NAME/high``, with flow bins.

    Where the output is not that of a sample, those of an earlier one are removed.

    Raises:
        OutputError: if they cannot be written.
    """
    try:
        if share is None:
            (folder / PREDICTIONS).unlink(missing_ok=True)
            return
        intervals: dict[str, Any] = {}
        for name, histogram in find(output):
            if _sums(histogram) is not None:
                intervals[f"{name}/low"], intervals[f"{name}/high"] = predict(histogram, share)
        content = io.BytesIO()
        np.savez_compressed(content, **intervals)
        write_bytes(folder / PREDICTIONS, content.getvalue())
    except OSError as error:
        raise OutputError(f"The predictions of the sample cannot be saved in {folder}: {error}.") from error


def _sums(histogram: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the sums of weights and of their squares, with flow bins; ``None`` if there are none."""
    view = histogram.view(flow=True)
    names = view.dtype.names
    if names is None:
        values = np.asarray(view, dtype=float)
        return values, np.abs(values)
    if names == ("value", "variance"):
        return np.asarray(view["value"], dtype=float), np.asarray(view["variance"], dtype=float)
    return None
