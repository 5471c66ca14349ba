"""Recomputing scores: stages, decoding once for all of them, engines, recipes. See `run.process`."""
