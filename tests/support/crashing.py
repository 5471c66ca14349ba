"""Imported into worker processes: a decoder that crashes at one file, never returns from another, and at a third takes
ever so much memory. Which, the environment says.
"""

import ctypes
import os
import time
from typing import Any
from unittest import mock

from civid_loader.decoding import read_frame_sets
from civid_loader.videos import ByteSource


def _read(video: ByteSource, *arguments: Any, **settings: Any) -> Any:
    if _is(video, "CIVID_TEST_CRASH"):
        ctypes.string_at(0)
    if _is(video, "CIVID_TEST_HANG"):
        ctypes.CDLL(None).sleep(3600)
    if _is(video, "CIVID_TEST_GREEDY"):
        taken = b"1" * int(os.environ["CIVID_TEST_BYTES"])
        time.sleep(60)
        raise AssertionError(f"{len(taken)} bytes were not too many")
    return read_frame_sets(video, *arguments, **settings)


def _is(video: ByteSource, variable: str) -> bool:
    """Whether it is the file that the variable names."""
    name = os.environ.get(variable)
    return name is not None and video.name.endswith(os.sep + name)


mock.patch("civid_loader.processing.planner.read_frame_sets", _read).start()


def install() -> None:
    """For who wants a function to call in each worker: importing this module was enough."""
