"""Hypothesis strategies: LVD-2M and MiraData tables, full of the cells that real ones have and of some worse ones."""

from typing import Final

from hypothesis import strategies as st

Row = dict[str, str]
Cell = st.SearchStrategy[str]

CAPTIONS: Final = ("short", "dense", "main_object", "background", "camera", "style")


def _mostly(good: Cell, *odd: str) -> Cell:
    """One cell in six or so is missing or odd."""
    spoiled = st.sampled_from(["", "nan", "NaN", "None", " none ", "null", " N/A", *odd])
    return st.integers(0, 5).flatmap(lambda die: spoiled if die == 0 else good)


TOKENS: Final = (
    "a dog", "runs,", '"Race" \'22', "line\nbreak", "two\r\nlines", "tab\t", "|||", "[", "]", "naïve", "日本語", "Ёлка",
    "😀", "\\u0411", "nan", "100%", "%20", ";", " some", "\u00a0wide\u3000", "Caption", "caption 1:", "'", "=1+1",
)  # fmt: skip
TEXT: Final = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=6).map(" ".join)
NUMBER: Final = st.one_of(
    st.floats(0.5, 200, allow_nan=False).map(repr), st.sampled_from(["12", "1280.0", " 7 ", "+3.5", "1e2", ".5", "60."])
)
BAD_NUMBERS: Final = ("abc", "inf", "-nan", "1_0", "0x10", "1e400", "-", "1,5", "-3", "1e30")
SECONDS: Final = st.integers(0, 4_000_000).map(lambda thousandths: thousandths / 1000)
SPAN_FORMS: Final = ("['{0}','{1}']", "['{0}', '{1}']", '["{0}", "{1}"]', "('{0}', '{1}')", " ['{0}' , '{1}'] ")
BAD_PAIRS: Final = (
    "[]",
    "['00:00:01.000']",
    "['0:1', 'x']",
    "[1, 2, 3]",
    "['a', 'b']",
    "00:00:01",
    "['00:00:09', '00:00:01']",
)


def _clock(seconds: float, form: int) -> str:
    """`00:00:17.759`, `0:01:20.880`, `00:00:17`, `01:20.5`: the ways upstream writes a time."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    texts = [f"{hours:02d}:{minutes:02d}:{rest:06.3f}", f"{hours}:{minutes:02d}:{rest:06.3f}"]
    texts += [f"{hours}:{minutes:02d}:{int(rest):02d}", f"{minutes:02d}:{rest:04.1f}"]
    return texts[form if form < 3 or not hours else 0]


@st.composite
def _times(draw: st.DrawFn) -> str:
    start = draw(SECONDS)
    edges = (_clock(edge, draw(st.integers(0, 3))) for edge in (start, start + draw(st.floats(0.1, 130))))
    return draw(st.sampled_from(SPAN_FORMS)).format(*edges)


@st.composite
def _frames(draw: st.DrawFn, *, may_be_open: bool = False) -> str:
    """`[11439, 13864]`, `[0, 1025.0]`, `(0, 3)`; of a scene cut also `[40, -1]`."""
    start = draw(st.integers(0, 900))
    end = -1 if may_be_open and draw(st.booleans()) else start + draw(st.integers(0, 900))
    return draw(st.sampled_from(["[{}, {}]", "[{},{}.0]", "({}, {})", "['{}', '{}']", "[{}.0, {}.0]"])).format(
        start, end
    )


@st.composite
def _parts(draw: st.DrawFn) -> str:
    """A raw caption; over 30 s in parts headed `Caption x:`."""
    parts = draw(st.lists(TEXT, min_size=1, max_size=4))
    head = draw(st.sampled_from(["Caption {}: ", "Caption {}:", "\nCaption {} : ", "Caption {}:\n"]))
    body = " ".join(head.format(i) + part for i, part in enumerate(parts, start=1))
    return draw(st.sampled_from([body, parts[0], f"{parts[0]} {body}", head.format(1)]))


@st.composite
def _windows(draw: st.DrawFn) -> str:
    """`[|||480||| 600||| text |||,|||240||| ... |||,]`: unsorted, with windows missing, some without a text."""
    starts = draw(st.lists(st.integers(0, 6), unique=True, max_size=5))
    text = TEXT.filter(lambda text: "|||" not in text)
    end = draw(st.sampled_from([120, 120, 120, 60, 0]))
    coded = [f"|||{120 * i}||| {120 * i + end}||| {draw(text | st.just(''))} |||," for i in starts]
    ends_in_comma = draw(st.booleans())
    if starts and not ends_in_comma:
        coded[-1] = coded[-1].removesuffix(",")
    return f"[{''.join(coded)}]" if starts else draw(st.sampled_from(["[|||x||| 120||| a |||,]", "[|||0||| 120|||,]"]))


KEYS: Final = st.sampled_from(
    ["BlUTkf-_GTg.66_3", "-RCZ_gmjtLU.14_2", "--x.y", "a.b.mp4", "c.mp4.mp4", "7", "0012", "é.1", "MP4.MP4"]
)
URLS: Final = st.sampled_from(
    ["https://www.youtube.com/watch?v=-RCZ_gmjtLU", "https://youtu.be/x", "https://a.b/c,d.mp4"]
)
LVD2M_CELLS: Final[dict[str, Cell]] = {
    "key": _mostly(KEYS, ".mp4", "a/b", ".."),
    "video_id": _mostly(st.sampled_from(["-RCZ_gmjtLU", "0123456789", "6294"])),
    "url": _mostly(URLS),
    "dataset_src": _mostly(st.sampled_from(["hdvg", "panda70m", "internvid", "webvid"])),
    "raw_caption": _mostly(_parts()),
    "refined_caption": _mostly(st.one_of(TEXT, st.sampled_from(["A person in white.", "A person in white. "]))),
    "rewritten_caption": _mostly(TEXT),
    "orig_caption": _mostly(TEXT),
    "total score": _mostly(NUMBER, *BAD_NUMBERS),
    "video_time": _mostly(NUMBER, "0", *BAD_NUMBERS),
}
SPAN: Final[dict[str, Cell]] = {"span": _mostly(_times(), *BAD_PAIRS)}
CUT: Final[dict[str, Cell]] = {
    "orig_span": _mostly(_times(), *BAD_PAIRS),
    "scene_cut": _mostly(_frames(may_be_open=True), "[0, -1]", "[0,-1]", "[10, 5]", "[1.5, 9]", *BAD_PAIRS),
}
V1_CELLS: Final[dict[str, Cell]] = {
    "clip_id": _mostly(st.sampled_from(["1431495.1", "1431495.10", "0.4", "4000052.0", "000001431495.10"])),
    "source": _mostly(
        st.sampled_from(
            ["youtube, hd-vila-100m", "videvo, %2Ffree-motion-graphics", "pexels", "videvo, a, b", "x, %C3%A9"]
        ),
        ", all",
    ),
    "video_url": _mostly(URLS),
    "video_id": _mostly(st.sampled_from(["6294", "-RCZ_gmjtLU", "007"])),
    "width": _mostly(st.sampled_from(["1280", "1280.0"]), "x", "1280.5", "99999999999", "0", "-5"),
    "height": _mostly(st.sampled_from(["720", "720.0"]), "x", "inf"),
    "fps": _mostly(st.sampled_from(["29.97", "30", "23.97602398", "50.0"]), *BAD_NUMBERS),
    "seconds": _mostly(st.floats(20, 900).map(repr), *BAD_NUMBERS),
    "timestamp": _mostly(_times(), *BAD_PAIRS),
    "frame_number": _mostly(st.sampled_from(["2425", "1025.0"]), "x", "0.5", "1e30", "0"),
    "framestamp": _mostly(_frames(), "[1, 2.5]", *BAD_PAIRS),
    "file_path": _mostly(
        st.sampled_from(
            [
                "video_clips/000001431/000001431495.10.mp4",
                "000001431495.1.mp4",
                "v/000000000000.4.mp4",
                "000004000052.0",
            ]
        ),
        "video.mp4",
        "../../000001431495.10.mp4",
        "/a/000001431495.10.mp4",
    ),
    **{f"{kind}_caption": _mostly(TEXT | _windows()) for kind in CAPTIONS},
}
V0_CELLS: Final[dict[str, Cell]] = {
    "index": _mostly(
        st.sampled_from(
            ["000000008783_AJp_ANXoGoM-000114", "000000007416_-a-b-c-d-e--000001", "000000000000_日本語aaaaaaaa-000000"]
        ),
        "8783_AJp_ANXoGoM-000114",
    ),
    "video_id": _mostly(st.sampled_from(["AJp_ANXoGoM", "-a-b-c-d-e-"])),
    "start_frame": _mostly(st.integers(0, 9000).map(lambda frame: f"{frame}.0"), "-30", "1e30"),
    "end_frame": _mostly(st.integers(3000, 200_000).map(str), "1e3", "7.5"),
    **{f"{kind}_caption": _mostly(st.one_of(TEXT, TEXT.map(lambda text: f" lost {text}"))) for kind in CAPTIONS[:2]},
    "fps": _mostly(NUMBER, "0", *BAD_NUMBERS),
    "start_timestep": st.just("1:30:42"),
}


def tables(cells: dict[str, Cell], *needed: str) -> st.SearchStrategy[list[Row]]:
    """A few rows; now and then a column that can be done without is missing from the file."""
    optional = sorted(cells.keys() - set(needed))
    none: list[str] = []
    dropped = st.one_of(st.just(none), st.lists(st.sampled_from(optional), max_size=3))
    rows = st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=6)
    return st.tuples(dropped, rows).map(
        lambda drawn: [{name: cell for name, cell in row.items() if name not in drawn[0]} for row in drawn[1]]
    )
