"""Import path of the published code; the op itself lives in :mod:`mask2former.ops`."""
