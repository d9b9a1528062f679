# SPDX-License-Identifier: Apache-2.0
"""Exported files: int8 TFLite and float ONNX, their interpreters, and checks against PyTorch."""
