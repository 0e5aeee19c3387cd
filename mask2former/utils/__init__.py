"""Helpers that belong to no single room."""
