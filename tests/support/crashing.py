"""Imported into worker processes: a decoder that crashes at one file and never returns from another."""

import ctypes
import os
from typing import Any
from unittest import mock

from civid_loader.decoding import read_frame_sets
from civid_loader.videos import ByteSource


def _read(video: ByteSource, *arguments: Any, **settings: Any) -> Any:
    if video.name.endswith(os.sep + os.environ["CIVID_TEST_CRASH"]):
        ctypes.string_at(0)
    if video.name.endswith(os.sep + os.environ["CIVID_TEST_HANG"]):
        ctypes.CDLL(None).sleep(3600)
    return read_frame_sets(video, *arguments, **settings)


mock.patch("civid_loader.processing.planner.read_frame_sets", _read).start()
