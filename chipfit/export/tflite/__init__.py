# SPDX-License-Identifier: Apache-2.0
"""int8 TFLite: calibration, lowering and the file itself."""

from chipfit.export.tflite.calibrate import calibrate
from chipfit.export.tflite.file import TFLiteFile, tflite_refusals, to_tflite
from chipfit.export.tflite.ranges import Ranges, synthetic_ranges

__all__ = ["Ranges", "TFLiteFile", "calibrate", "synthetic_ranges", "tflite_refusals", "to_tflite"]
