"""Captions: clips per second against what the server can give, and against a loop as one writes it oneself.

    python tests/benchmarks/captions.py [--quick] [--delay-seconds 2] [--output results.json]

The server is a process of its own, which answers each request after a fixed time, so many at once as it has slots: it
can give slots / delay answers per second, and whoever keeps all slots busy gets them. The 32 of the default are what
four to eight H200 give with a model of 8B, by estimate; what a clip costs in CPU tells how many cores a faster server
takes. Contenders run in processes of their own, one after the other, without their imports. Clips: one second of H.264,
GOP 12, 320 x 180.
"""

import asyncio
import base64
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.videos import Table, environment, save

from support.built import clip, write_dataset
from support.media import colourful_image, write_video

NUM_SLOTS: Final = 64
MODEL: Final = "stub"
NUM_WORDS: Final = {"video_content": 250, "camera_angle": 20, "camera_movement": 20, "video_background": 50}
_ANSWER: Final = json.dumps({name: " ".join(["word"] * count) for name, count in NUM_WORDS.items()})
_USAGE: Final = {"prompt_tokens": 1300, "completion_tokens": sum(NUM_WORDS.values())}
_CHOICE: Final = {"message": {"role": "assistant", "content": _ANSWER}, "finish_reason": "stop"}
_COMPLETION: Final = json.dumps({"choices": [_CHOICE], "usage": _USAGE}).encode()
_MODELS: Final = json.dumps({"data": [{"id": MODEL}]}).encode()


async def serve(delay_seconds: float) -> None:
    """Answer until killed; the port is the first line printed."""
    slots = asyncio.Semaphore(NUM_SLOTS)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                await reader.readexactly(int(headers.get("content-length", 0)))
                data = _MODELS
                if head[0].startswith("POST"):
                    data = _COMPLETION
                    async with slots:
                        await asyncio.sleep(delay_seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=1 << 22, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def dataset(root: Path, *, num_clips: int) -> Path:
    """Clips of one second, of one short film, again and again; 64 to a sample, as the writer makes small row groups."""
    clips = [clip(f"c{i}", "film.mp4", span=(float(i % 4), i % 4 + 1.0)) for i in range(num_clips)]
    return write_dataset(root, {"train": [clips[i : i + 64] for i in range(0, num_clips, 64)]})


def ours(folder: Path, base_url: str, num_clips: int) -> dict[str, float]:
    """`civid_loader`: decoding, asking, writing the layer, all of it."""
    from civid_loader.processing.captioner import CaptionerSpec
    from civid_loader.processing.run import process
    from civid_loader.processing.work import StageSpec

    root = dataset(folder / f"set-{time.time_ns()}", num_clips=num_clips)
    report = process(
        root,
        [StageSpec(name="civid_single", params={}, weights={})],
        layer="captions-x",
        videos=folder,
        captioner=CaptionerSpec(
            backend="openai", model=MODEL, options={"base_url": base_url, "max_in_flight": NUM_SLOTS}
        ),
        quiet=True,
    )
    assert not report.reasons, report.reasons
    assert report.usage is not None
    return {
        "wall": report.wall_seconds,
        "share": report.server_share or 0.0,
        "tokens": report.usage.completion_tokens or 0,
        "decode": report.decode_seconds,
    }


def naive(folder: Path, base_url: str, num_clips: int, *, num_threads: int) -> dict[str, float]:
    """Clip by clip, decode and then ask, in so many threads; nothing is tried again, checked or kept."""
    import av
    import cv2
    import httpx2

    client = httpx2.Client(timeout=600, limits=httpx2.Limits(max_connections=num_threads))

    def caption(i: int) -> int:
        wanted, pictures = [i % 4 + share for share in (0.25, 0.5, 0.75)], []
        with av.open(str(folder / "film.mp4")) as container:
            container.seek(int(wanted[0] * 1e6))
            for frame in container.decode(video=0):
                if wanted and (frame.time or 0.0) >= wanted[0] - 0.02:
                    wanted.pop(0)
                    data = cv2.imencode(".jpg", frame.to_ndarray(format="bgr24"), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
                    pictures.append(base64.b64encode(data.data).decode())
                if not wanted:
                    break
        content = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{one}"}} for one in pictures]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
        told = client.post(f"{base_url}/chat/completions", json=body).json()
        assert json.loads(told["choices"][0]["message"]["content"])
        return int(told["usage"]["completion_tokens"])

    start = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        tokens = sum(pool.map(caption, range(num_clips)))
    return {"wall": time.perf_counter() - start, "tokens": tokens}


CONTENDERS: Final[dict[str, Callable[[Path, str, int], dict[str, float]]]] = {
    "civid_loader": ours,
    "loop in 64 threads": lambda *about: naive(*about, num_threads=NUM_SLOTS),
    "loop, one by one": lambda *about: naive(*about, num_threads=1),
}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer clips, one round.")] = False,
    delay_seconds: Annotated[float, typer.Option(help="The server takes so long for an answer.")] = 2.0,
    output: Annotated[Path | None, typer.Option(help="Write all numbers as JSON.")] = None,
    run_one: Annotated[str | None, typer.Option(hidden=True)] = None,
    run_server: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run all contenders."""
    if run_server:
        asyncio.run(serve(delay_seconds))
        return
    if run_one is not None:
        name, folder_name, base_url, num_clips = json.loads(run_one)
        import civid_loader.processing.run  # noqa: F401 - not what is measured

        cpu_before = time.process_time()
        found = CONTENDERS[name](Path(folder_name), base_url, num_clips)
        found["cpu"] = time.process_time() - cpu_before
        print(json.dumps(found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    about = environment("httpx2", "tenacity", "opencv-python-headless")
    print(about)
    ideal = NUM_SLOTS / delay_seconds
    many = NUM_SLOTS * round((10 if quick else 40) / delay_seconds)
    num_clips = dict.fromkeys(CONTENDERS, many) | {"loop, one by one": 8 if quick else 24}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "film.mp4", num_frames=110, size=(180, 320), image=_image)
        command = [sys.executable, __file__, "--run-server", "--delay-seconds", str(delay_seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            for _ in range(1 if quick else 3):
                for name, count in num_clips.items():
                    told = json.dumps([name, folder, base_url, count])
                    one = subprocess.run(
                        [sys.executable, __file__, "--run-one", told], check=True, capture_output=True, text=True
                    )
                    runs[name].append(json.loads(one.stdout.splitlines()[-1]))
            server.kill()
    title = f"{many} clips, {NUM_SLOTS} at once, {delay_seconds:g} s an answer: {ideal:.0f} clips/s at most"
    columns = ["contender", "clips/s", "of the most", "tokens/s", "server busy", "CPU ms per clip", "peak MB"]
    table = Table(title, columns)
    for name, each in runs.items():
        middle: dict[str, Any] = {key: statistics.median(run[key] for run in each) for key in each[0]}
        rate = num_clips[name] / middle["wall"]
        table.add(
            name,
            f"{rate:.1f}",
            f"{rate / ideal:.1%}",
            f"{middle['tokens'] / middle['wall']:,.0f}",
            f"{middle['share']:.1%}" if "share" in middle else "",
            f"{1000 * middle['cpu'] / num_clips[name]:.1f}",
            f"{middle['memory']:.0f}",
        )
    save(output, [table], about)


def _image(number: int) -> Any:
    return colourful_image(number, size=(180, 320))


if __name__ == "__main__":
    typer.run(main)
