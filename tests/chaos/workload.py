"""What is computed: a weighted histogram whose sums depend on their order, unless they are exact."""

import time
from typing import Any

import hist
import numpy as np
from coffea import processor


class Weighted(processor.ProcessorABC):  # type: ignore[misc]
    """Fills MET with weights that no double can hold."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def process(self, events: Any) -> dict[str, Any]:
        """Counts and fills, and takes its time."""
        time.sleep(self.seconds)
        met = np.asarray(events["MET_pt"], dtype=np.float64)
        h = hist.Hist(hist.axis.Regular(30, 0, 120, name="met"), storage=hist.storage.Weight())
        return {"n": len(met), "h": h.fill(met, weight=0.1 * (1 + met % 3))}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing more."""
        return accumulator
