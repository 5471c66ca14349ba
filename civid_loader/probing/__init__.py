"""`civid probe`: what the video files of a dataset really hold. Start with `dataset.py`."""
