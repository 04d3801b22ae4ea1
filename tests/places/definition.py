"""A place of definitions: every operation is its `reference.py`, in float64, and nothing else."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from errseg_rt.kernels.calibrate.reference import calibrate_final_reference, calibrate_reference
from errseg_rt.kernels.finite.reference import finite_reference
from errseg_rt.kernels.fuse_labels.reference import fuse_labels_reference
from errseg_rt.kernels.instances.reference import instances_reference
from errseg_rt.kernels.preprocess.reference import preprocess_reference
from errseg_rt.kernels.refine.reference import refine_reference
from errseg_rt.kernels.select.reference import select_reference
from errseg_rt.places.cpu import Stopwatch


class Definition:
    """A `Place`: what a frame's way is held against."""

    is_immediate, name = True, "the definition"
    marks = Stopwatch

    def entered(self):
        return nullcontext()

    def begin(self):
        pass

    def wait(self):
        pass

    def weights(self, weights, dtype):
        return weights

    def knots(self, logits, probabilities):
        return logits, probabilities

    def preprocess(self, frame, content_size, input_size, *, dtype, **colors):
        return preprocess_reference(frame, content_size, input_size, **colors).astype(dtype)

    def select(self, error_logit, bounds, *, seen, layers):
        return select_reference(error_logit, bounds.threshold, seen=seen, layers=layers, budget=bounds.budget)

    def refine(self, weights, selection, logits, low, coarse, gate):
        return refine_reference(weights, selection, logits, low, coarse, gate).astype(np.float32)

    def fuse_labels(self, semantic, detail, flagged, geometry, *, confidence=False):
        return fuse_labels_reference(semantic, detail, flagged, geometry, confidence=confidence)

    def things(self, spec, classes):
        return spec

    def instances(self, semantic, detail, flagged, boxes, labels, geometry, things):
        return instances_reference(semantic, detail, flagged, boxes, labels, geometry, things)

    def calibrate(self, error_logit, knots, *of_detail):
        if of_detail:
            return calibrate_final_reference(error_logit, knots, *of_detail).astype(np.float32)
        return calibrate_reference(error_logit, *knots).astype(np.float32)

    def finite(self, branches, counts):
        return finite_reference(branches, counts)

    def upload(self, frame):
        return frame

    def download(self, arrays):
        return arrays

    def host(self, array):
        return array
