"""Stages that ask a model that sees, one file each."""
