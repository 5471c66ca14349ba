"""Of each source dataset: its paper, the faults its files are known to have, and what the flags of its rows mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A source dataset."""

    about: str
    """What it is, and how its authors made it, in a sentence or two."""
    paper_title: str
    arxiv_id: str
    citation: str
    """BibTeX."""
    defects: tuple[str, ...]
    """Known faults of what its authors ship, in Markdown; what a build does about them is in the flags."""


def _bibtex(key: str, title: str, author: str, year: int, arxiv_id: str, venue: str | None = None) -> str:
    kind = "inproceedings" if venue else "misc"
    fields = {"title": title, "author": author, **({"booktitle": venue} if venue else {}), "year": str(year)}
    fields |= {"eprint": arxiv_id, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{arxiv_id}"}
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}\n}}"


def _origin(key: str, title: str, author: str, year: int, arxiv_id: str, venue: str | None = None, *,
            about: str, defects: tuple[str, ...]) -> Origin:  # fmt: skip
    citation = _bibtex(key, title, author, year, arxiv_id, venue)
    return Origin(about=about, paper_title=title, arxiv_id=arxiv_id, citation=citation, defects=defects)


ORIGINS: Final[Mapping[str, Origin]] = {
    "civid": _origin(
        "ju2025civid",
        "{CI-VID}: A Coherent Interleaved Text-Video Dataset",
        "Ju, Yiming and others", 2025, "2507.01938",
        about="Sequences of clips of one video that belong together, with four texts about each clip and six about "
        "each step from a clip to the next. The texts are by GPT-4o, from three frames of a clip.",
        defects=(
            "Many texts end in what is left of the model's code fence, and some hold JSON escapes that nobody decoded.",
            "The model was told a length of 0.00 seconds for every clip: the code that measures it never worked. What "
            "texts say about length or pace is a guess.",
            "Parts of the videos are hard to get; a sample may have clips without a file.",
        ),
    ),
    "miradata": _origin(
        "ju2024miradata",
        "{MiraData}: A Large-Scale Video Dataset with Long Durations and Structured Captions",
        "Ju, Xuan and Gao, Yiming and Zhang, Zhaoyang and Yuan, Ziyang and Wang, Xintao and Zeng, Ailing and "
        "Xiong, Yu and Xu, Qiang and Shan, Ying",
        2024, "2407.06358", "Advances in Neural Information Processing Systems, Datasets and Benchmarks Track",
        about="Long clips of games, city walks, films and stock video, with six texts each. The short text is a "
        "Panda-70M caption, the other five are GPT-4V's, from eight frames.",
        defects=(
            "`clip_id` of v1 went through a float, so that clips 1 and 10 of a video share an id. Ids here are from "
            "the file names.",
            "Frame numbers of v1 rows from HD-VILA are up to ten seconds off; the times are right.",
            "Clips longer than 120 s have a text per whole 120 s window, and some windows have none.",
            "Some texts begin in mid-sentence.",
            "The v1 script cuts without encoding anew: files begin at a keyframe near the stated time, and their "
            "length differs from the stated one. The layer `media` has what they really hold.",
            "The v0 script cuts only the first clip of each source video, and cuts ids with a hyphen short.",
            "v1 tables of several quality levels hold the same clips.",
        ),
    ),
    "moviebench": _origin(
        "wu2025moviebench",
        "{MovieBench}: A Hierarchical Movie Level Dataset for Long Video Generation",
        "Wu, Weijia and Liu, Mingyu and Zhu, Zeyu and Xi, Xia and Feng, Haoen and Wang, Wen and Lin, Kevin Qinghong "
        "and Shen, Chunhua and Shou, Mike Zheng",
        2025, "2411.15262", "Conference on Computer Vision and Pattern Recognition (CVPR)",
        about="Movies of LSMDC on three levels: movie (synopsis, characters), scene, and shot (plot, background, "
        "camera, style, who appears). The texts are by GPT-4o; those of the test movies were corrected by hand.",
        defects=(
            "A shot the model gave no usable answer for has no annotation.",
            "Scenes are runs of shots the model gave the same name; a shot may be in none, or listed twice.",
            "Names in the shots and in the character bank do not always match.",
            "About 69 of the 160 movies are in neither split of the authors, and have shots but no scenes.",
            "The audio bank and the subtitles of the paper are not in the release.",
        ),
    ),
    "lvd2m": _origin(
        "xiong2024lvd2m",
        "{LVD-2M}: A Long-take Video Dataset with Temporally Dense Captions",
        "Xiong, Tianwei and Wang, Yuqing and Zhou, Daquan and Lin, Zhijie and Feng, Jiashi and Liu, Xihui",
        2024, "2410.10816", "Advances in Neural Information Processing Systems, Datasets and Benchmarks Track",
        about="Clips of at least 10 s without a cut and with much motion, from HD-VG, Panda-70M, InternVid and WebVid. "
        "The raw text is by LLaVA-v1.6-34B, the refined one by Claude 3 Haiku, the rewritten one by LLaMA-3.1-70B.",
        defects=(
            "Thousands of rows have the same wrong `refined` caption, most likely a bad answer of the model's service; "
            "`rewritten` is made from it. Use `raw` where the flag is set.",
            "The authors' script leaves out every clip of 20 s and more, a large share of them.",
            "Clips of the HD-VG part lose their first frame in the authors' script.",
            "Files are cut at keyframes and mostly have no sound. WebVid rows are links; the site no longer has them.",
        ),
    ),
}  # fmt: skip
"""Builder -> its source dataset."""

FLAGS: Final[Mapping[str, str]] = {
    "video_not_found": "No file had the clip's name when the dataset was built; the pointer is upstream's name for it.",
    "ambiguous_video": "Several files fitted equally well; the first by name was taken.",
    "proxy_failed": "The video of a clip could not be copied; that clip points to the original.",
    "read_as_windows_1252": "The row is not UTF-8.",
    "fence_residue": "The end of a model's code fence was cut off a caption.",
    "escapes_decoded": "Escapes such as `\\u0411` in a caption were decoded.",
    "escapes_left": "Escapes in a caption could not be decoded and were left.",
    "caption_prefix_lost": "A caption begins in mid-sentence: upstream lost its start.",
    "clip_id_float_loss": "Upstream's clip id lost a zero; the id here is from the file name.",
    "frames_disagree_with_timestamp": "Frame numbers and times differ by over 0.1 s; the times count.",
    "zero_or_negative_measure": "A size, rate or length of upstream's was not positive; it is null.",
    "missing_caption_windows": "Not every whole 120 s window has captions.",
    "duplicated_refined_caption": "Other rows have the very same refined caption: most likely a wrong answer.",
    "caption_windows_assumed": "The parts of the raw caption are taken to be 30 s each.",
    "caption_parts_without_windows": "The number of parts does not fit 30 s parts, so they have no times.",
    "span_from_scene_cut": "The span was worked out from upstream's span, scene cut and length.",
    "scene_cut_not_inside_orig_span": "The three do not fit together; the span is upstream's.",
    "repeated_shot": "A scene lists a shot twice; it is one clip.",
    "missing_shot_annotation": "A shot has no annotation.",
    "unreadable_shot_annotation": "The annotation of a shot could not be read.",
    "text_after_annotation": "Text after the end of a shot's annotation was left out.",
    "character_not_in_bank": "A shot names somebody the character bank does not have.",
}
"""Flag -> what it says of a row, in Markdown."""
