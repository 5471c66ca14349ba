"""Tests that need a CUDA device, marked `gpu`. Nothing here yet: no code of this package runs on one so far."""
