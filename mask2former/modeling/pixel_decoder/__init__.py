"""Pixel decoders: from backbone features to per-pixel embeddings and multi-scale features."""
