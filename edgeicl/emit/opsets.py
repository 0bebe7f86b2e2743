"""The operators that graphs are made of: ONNX's own of one version, and those of onnxruntime."""

from __future__ import annotations

FUSED = "com.microsoft"
IR_VERSION = 10
OPSET = 21
