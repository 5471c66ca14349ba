"""Training data for long and interleaved video generation: CI-VID, MiraData, MovieBench and LVD-2M in one typed schema.

Names are loaded on first use, so that `import civid_loader` stays fast and needs neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from civid_loader.buckets import Bucket as Bucket
    from civid_loader.buckets import fit_buckets as fit_buckets
    from civid_loader.caption_diff import CaptionDiff as CaptionDiff
    from civid_loader.caption_diff import diff_captions as diff_captions
    from civid_loader.caption_diff_page import write_diff_html as write_diff_html
    from civid_loader.captions import Alternative as Alternative
    from civid_loader.collation import Batch as Batch
    from civid_loader.collation import collate as collate
    from civid_loader.decode_threads import set_max_threads as set_max_threads
    from civid_loader.decoding import Frames as Frames
    from civid_loader.decoding import read_frames as read_frames
    from civid_loader.filtering import FilterReport as FilterReport
    from civid_loader.filtering import filter as filter
    from civid_loader.filtering import filter_dataset as filter_dataset
    from civid_loader.hub.loading import load as load
    from civid_loader.hub.pull import PullReport as PullReport
    from civid_loader.hub.pull import pull as pull
    from civid_loader.hub.push import PushReport as PushReport
    from civid_loader.hub.push import push_to_hub as push_to_hub
    from civid_loader.hub.video_config import write_video_config as write_video_config
    from civid_loader.judging import columns_of as columns_of
    from civid_loader.layers import write_layer as write_layer
    from civid_loader.loader import SequenceLoader as SequenceLoader
    from civid_loader.loader_stats import LoaderStats as LoaderStats
    from civid_loader.loader_stats import WorkerStats as WorkerStats
    from civid_loader.materialize import BuildReport as BuildReport
    from civid_loader.materialize import build as build
    from civid_loader.ordering import Mix as Mix
    from civid_loader.packets import PacketIndex as PacketIndex
    from civid_loader.packing import PackClips as PackClips
    from civid_loader.packing import PackedBatch as PackedBatch
    from civid_loader.packing import PackedFrames as PackedFrames
    from civid_loader.packing import pack_frames as pack_frames
    from civid_loader.plan import BatchPlan as BatchPlan
    from civid_loader.probing.dataset import probe_dataset as probe_dataset
    from civid_loader.probing.media_report import ProbeReport as ProbeReport
    from civid_loader.processing.captioner import CaptionerSpec as CaptionerSpec
    from civid_loader.processing.curate import curate as curate
    from civid_loader.processing.distances import FeatureMoments as FeatureMoments
    from civid_loader.processing.distances import KernelDistance as KernelDistance
    from civid_loader.processing.distances import frechet_distance as frechet_distance
    from civid_loader.processing.distances import kernel_distance as kernel_distance
    from civid_loader.processing.process_report import ProcessReport as ProcessReport
    from civid_loader.processing.run import process as process
    from civid_loader.processing.tiers import fit_tiers as fit_tiers
    from civid_loader.processing.work import StageSpec as StageSpec
    from civid_loader.reencoding.proxies import ProxyReport as ProxyReport
    from civid_loader.reencoding.proxies import proxies as proxies
    from civid_loader.sample_sizes import SampleSizes as SampleSizes
    from civid_loader.sample_sizes import read_sizes as read_sizes
    from civid_loader.sampling import All as All
    from civid_loader.sampling import Fps as Fps
    from civid_loader.sampling import Middle as Middle
    from civid_loader.sampling import RandomWindow as RandomWindow
    from civid_loader.sampling import Snapped as Snapped
    from civid_loader.sampling import Thirds as Thirds
    from civid_loader.sampling import Times as Times
    from civid_loader.sampling import Uniform as Uniform
    from civid_loader.sampling import UniformEnds as UniformEnds
    from civid_loader.sampling import Window as Window
    from civid_loader.transforms.choose_captions import ChooseCaptions as ChooseCaptions
    from civid_loader.transforms.crop_frames import CropFrames as CropFrames
    from civid_loader.transforms.decode_clips import DecodeClips as DecodeClips
    from civid_loader.transforms.drop_text import DropText as DropText
    from civid_loader.transforms.fit_bucket import FitBucket as FitBucket
    from civid_loader.transforms.flip_frames import FlipFrames as FlipFrames
    from civid_loader.transforms.image_grid import ImageGrid as ImageGrid
    from civid_loader.transforms.interleave import Interleave as Interleave
    from civid_loader.transforms.interleave import TextItem as TextItem
    from civid_loader.transforms.interleave import VideoItem as VideoItem
    from civid_loader.transforms.normalize_frames import NormalizeFrames as NormalizeFrames
    from civid_loader.transforms.pad_frames import PadFrames as PadFrames
    from civid_loader.transforms.resample_fps import ResampleFps as ResampleFps
    from civid_loader.transforms.resize_frames import ResizeFrames as ResizeFrames
    from civid_loader.transforms.tokenize_text import TokenizeText as TokenizeText
    from civid_loader.transforms.trim_frames import TrimFrames as TrimFrames
    from civid_loader.transforms.window_frames import WindowFrames as WindowFrames
    from civid_loader.unpacking import ArchiveReport as ArchiveReport
    from civid_loader.unpacking import UnpackReport as UnpackReport
    from civid_loader.unpacking import unpack as unpack

__version__ = "0.1.0"

_HOME = {
    "All": "sampling",
    "Alternative": "captions",
    "ArchiveReport": "unpacking",
    "Batch": "collation",
    "BatchPlan": "plan",
    "Bucket": "buckets",
    "BuildReport": "materialize",
    "CaptionDiff": "caption_diff",
    "CaptionerSpec": "processing.captioner",
    "ChooseCaptions": "transforms.choose_captions",
    "CropFrames": "transforms.crop_frames",
    "DecodeClips": "transforms.decode_clips",
    "DropText": "transforms.drop_text",
    "FeatureMoments": "processing.distances",
    "FilterReport": "filtering",
    "FitBucket": "transforms.fit_bucket",
    "FlipFrames": "transforms.flip_frames",
    "Fps": "sampling",
    "Frames": "decoding",
    "ImageGrid": "transforms.image_grid",
    "Interleave": "transforms.interleave",
    "KernelDistance": "processing.distances",
    "LoaderStats": "loader_stats",
    "Middle": "sampling",
    "Mix": "ordering",
    "NormalizeFrames": "transforms.normalize_frames",
    "PackClips": "packing",
    "PackedBatch": "packing",
    "PackedFrames": "packing",
    "PacketIndex": "packets",
    "PadFrames": "transforms.pad_frames",
    "ProbeReport": "probing.media_report",
    "ProcessReport": "processing.process_report",
    "ProxyReport": "reencoding.proxies",
    "PullReport": "hub.pull",
    "PushReport": "hub.push",
    "RandomWindow": "sampling",
    "ResampleFps": "transforms.resample_fps",
    "ResizeFrames": "transforms.resize_frames",
    "SampleSizes": "sample_sizes",
    "SequenceLoader": "loader",
    "Snapped": "sampling",
    "StageSpec": "processing.work",
    "TextItem": "transforms.interleave",
    "Thirds": "sampling",
    "Times": "sampling",
    "TokenizeText": "transforms.tokenize_text",
    "TrimFrames": "transforms.trim_frames",
    "Uniform": "sampling",
    "UniformEnds": "sampling",
    "UnpackReport": "unpacking",
    "VideoItem": "transforms.interleave",
    "Window": "sampling",
    "WindowFrames": "transforms.window_frames",
    "WorkerStats": "loader_stats",
    "build": "materialize",
    "collate": "collation",
    "columns_of": "judging",
    "curate": "processing.curate",
    "diff_captions": "caption_diff",
    "filter": "filtering",
    "filter_dataset": "filtering",
    "fit_tiers": "processing.tiers",
    "fit_buckets": "buckets",
    "frechet_distance": "processing.distances",
    "kernel_distance": "processing.distances",
    "load": "hub.loading",
    "pack_frames": "packing",
    "probe_dataset": "probing.dataset",
    "process": "processing.run",
    "proxies": "reencoding.proxies",
    "pull": "hub.pull",
    "push_to_hub": "hub.push",
    "read_frames": "decoding",
    "read_sizes": "sample_sizes",
    "set_max_threads": "decode_threads",
    "unpack": "unpacking",
    "write_diff_html": "caption_diff_page",
    "write_layer": "layers",
    "write_video_config": "hub.video_config",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'civid_loader' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"civid_loader.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
