"""What it costs to compute flow by RAFT with each frame encoded once, against torchvision's forward over pairs.

    python tests/benchmarks/raft.py [--quick] [--output results.json]

Random weights: neither the work nor the time depends on them. FLOPs are counted by torch without computing anything.
CPU seconds are medians, contenders in turn, one thread. With a GPU, pairs per second and what precision costs.
"""
# ruff: noqa: N803 - tensors carry their shape.

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import numpy.typing as npt
import torch
import typer
from benchmarks.videos import Table, environment, race, save
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.optical_flow import RAFT

from civid_loader.processing.raft import GPU_BATCH, Precision, Raft
from support.stages_motion import pattern_HWC, random_raft, shifted_THWC

Images = npt.NDArray[np.uint8]
SIZE: Final = (520, 960)
NUM_FRAMES: Final = 20
"""Of 10 s at 2 fps."""
MOST_FLOPS: Final = 0.84
"""Of raft_large at 12 updates, against torchvision; more is a mistake."""


def stock(model: RAFT, frames_THWC: Images, *, device: str, num_flow_updates: int, batch: int) -> torch.Tensor:
    """Flow [T - 1, 2, H, W] by torchvision's forward."""
    found = []
    for start in range(0, len(frames_THWC) - 1, batch):
        some = torch.from_numpy(frames_THWC[start : start + batch + 1]).to(device).permute(0, 3, 1, 2).contiguous()
        images = (some / 255 - 0.5) / 0.5
        with torch.no_grad():
            found.append(model(images[:-1], images[1:], num_flow_updates=num_flow_updates)[-1])
    return torch.cat(found)


def ours(raft: Raft, frames_THWC: Images) -> torch.Tensor:
    """The same by `Raft`."""
    return torch.stack([flow for _, flow in raft.flows([frames_THWC])])


def flops() -> Table:
    """Per pair of a clip, on the meta device."""
    table = Table(
        f"GFLOP per pair at {SIZE[0]}x{SIZE[1]}, clip of {NUM_FRAMES} frames",
        ["model", "updates", "torchvision", "ours", "ours/torchvision"],
    )
    frames = np.zeros((3, *SIZE, 3), np.uint8)
    for large in (True, False):
        for num_flow_updates in (12, 20, 32):
            model = random_raft(large=large).to("meta")
            raft = Raft(model, device="meta", num_flow_updates=num_flow_updates)
            pair = partial(stock, model, frames[:2], device="meta", num_flow_updates=num_flow_updates, batch=1)
            # Each frame more is as much work again as the third.
            two, three = (_flops(partial(ours, raft, frames[:num_frames])) for num_frames in (2, 3))
            theirs, mine = _flops(pair), (two + (NUM_FRAMES - 2) * (three - two)) / (NUM_FRAMES - 1)
            name = "raft_large" if large else "raft_small"
            table.add(name, str(num_flow_updates), f"{theirs / 1e9:.0f}", f"{mine / 1e9:.0f}", f"{mine / theirs:.3f}")
            assert not (large and num_flow_updates == 12) or mine <= MOST_FLOPS * theirs, "each frame only once?"
    return table


def _flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


def cpu(*, size: tuple[int, int], num_frames: int, min_rounds: int) -> Table:
    """Seconds of a clip."""
    table = Table(
        f"CPU seconds, {num_frames} frames of {size[0]}x{size[1]}, 12 updates, one thread",
        ["model", "torchvision", "ours", "ours/torchvision", "max difference px", "mean length px"],
    )
    frames = shifted_THWC(pattern_HWC(*size), [3 * i for i in range(num_frames)])
    for large in (True, False):
        model = random_raft(large=large)
        runs = race(
            {
                "torchvision": partial(stock, model, frames, device="cpu", num_flow_updates=12, batch=num_frames),
                "ours": partial(ours, Raft(model), frames),
            },
            min_rounds=min_rounds,
            max_rounds=5,
            budget_seconds=10.0,
        )
        seconds = {name: timing.cpu_seconds for name, timing in runs.items()}
        difference = (runs["ours"].result - runs["torchvision"].result).abs().max()
        table.add(
            "raft_large" if large else "raft_small",
            *(f"{value:.2f}" for value in seconds.values()),
            f"{seconds['ours'] / seconds['torchvision']:.3f}",
            f"{float(difference):.1e}",
            f"{float(runs['ours'].result.abs().mean()):.2f}",
        )
    return table


def cuda(*, num_frames: int) -> Table:
    """Pairs per second, and the error against torchvision's forward in float32 without TF32."""
    table = Table(
        f"CUDA ({torch.cuda.get_device_name()}), {num_frames} frames of {SIZE[0]}x{SIZE[1]}, 12 updates, {GPU_BATCH} "
        "pairs at once",
        ["model", "contender", "pairs/s", "GPU MB at most", "change of mean length", "mean difference px", "max"],
    )
    torch.backends.cudnn.allow_tf32 = False
    frames = shifted_THWC(pattern_HWC(*SIZE), [3 * i for i in range(num_frames)])
    for large in (True, False):
        model = random_raft(large=large).to("cuda")
        contenders: dict[str, Callable[[], torch.Tensor]] = {
            "torchvision fp32": partial(stock, model, frames, device="cuda", num_flow_updates=12, batch=GPU_BATCH)
        }
        for precision in get_args(Precision):
            contenders[f"ours {precision}"] = partial(ours, Raft(model, device="cuda", precision=precision), frames)
        expected = contenders["torchvision fp32"]()
        for name, contender in contenders.items():
            seconds, found = _timed(contender)
            difference = (found - expected).abs()
            change = float(torch.linalg.vector_norm(found, dim=1).mean())
            change /= float(torch.linalg.vector_norm(expected, dim=1).mean())
            table.add(
                "raft_large" if large else "raft_small",
                name,
                f"{(num_frames - 1) / seconds:.1f}",
                f"{torch.cuda.max_memory_allocated() / 1e6:.0f}",
                f"{change - 1:+.2%}",
                f"{float(difference.mean()):.1e}",
                f"{float(difference.max()):.1e}",
            )
    return table


def _timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The better of two runs, after one to warm up."""
    work()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def main(
    quick: Annotated[bool, typer.Option(help="a smaller clip on the CPU")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Compare RAFT with frames encoded once to torchvision's forward."""
    torch.set_num_threads(1)
    about = environment("torchvision")
    print(about)
    tables: Sequence[Table] = [
        flops(),
        cpu(size=(128, 192), num_frames=3, min_rounds=2) if quick else cpu(size=(256, 480), num_frames=5, min_rounds=1),
    ]
    if torch.cuda.is_available():
        tables = [*tables, cuda(num_frames=NUM_FRAMES if quick else 4 * NUM_FRAMES + 1)]
    else:
        print("\nno CUDA device: nothing measured on a GPU")
    save(output, tables, about)


if __name__ == "__main__":
    typer.run(main)
