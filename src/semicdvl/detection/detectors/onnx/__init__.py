"""Networks in ONNX files: written from a run, opened with limits, and run without torch."""
