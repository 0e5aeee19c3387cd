"""Transformer decoders: from pixel-decoder maps to classes and masks of queries."""
