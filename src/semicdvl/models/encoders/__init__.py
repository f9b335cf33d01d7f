"""Encoders: feature pyramids of pretrained backbones, shared by the networks."""
