"""Scores of single clips. One file is one stage, named after the file."""
