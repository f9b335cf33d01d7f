"""Detectors: a trained network, an ONNX file, an unsupervised method, or a VLM with change event generation."""
