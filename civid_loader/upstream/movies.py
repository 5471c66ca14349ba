"""The MovieBench release on disk: which movies, shots, scenes and characters there are, before any shot is read."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from civid_loader.errors import AnnotationError
from civid_loader.upstream.documents import decode, read_document
from civid_loader.upstream.inputs import check_readable, walk

SHOT_NAME: Final = re.compile(
    r"^(?P<movie>[^/\\:]+)_(?P<start>\d{2}\.\d{2}\.\d{2}\.\d{3})-(?P<end>\d{2}\.\d{2}\.\d{2}\.\d{3})\Z"
)
"""Anchored at the end: titles contain "-" and "_" (`1002_Harry_Potter_and_the_Half-Blood_Prince`)."""
_SCENE_KEY: Final = re.compile(r"^\s*(?:Sence|Scene)\s*(?P<number>\d+)\s*[:.]?\s*(?P<title>.*?)\s*$", re.IGNORECASE)
_PORTRAIT: Final = (".jpg", ".jpeg", ".png", ".webp")
_SUBTITLES: Final = (".srt", ".vtt", ".ass")
_AUDIO: Final = (".wav", ".mp3", ".flac")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A run of shots in one place."""

    scene_id: str
    """`<movie>/<number>`; `<movie>/<number>_<position>` where upstream uses a number twice."""
    title: str | None
    shots: tuple[str, ...]
    """Shot names in time order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Character:
    """One folder of the character bank."""

    folder: str
    name: str
    actor: str | None
    aliases: tuple[str, ...]
    portraits: tuple[str, ...]
    """Relative to the release; the main portrait first."""
    audio: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Movie:
    """One movie of the release."""

    movie_id: str
    split: str
    """train, test, or extra: annotated, in neither split."""
    imdb_id: str | None = None
    synopsis: str | None = None
    scenes: tuple[Scene, ...] = ()
    characters: tuple[Character, ...] = ()
    shot_files: dict[str, str] = field(default_factory=dict)
    """Shot name -> annotation file."""

    @property
    def title(self) -> str:
        """`1002_Harry_Potter` -> `Harry Potter`"""
        return re.sub(r"^\d+_", "", self.movie_id).replace("_", " ")

    @property
    def shots(self) -> list[str]:
        """Names of all shots, annotated or listed in a scene, in time order."""
        return in_time_order({*self.shot_files, *(shot for scene in self.scenes for shot in scene.shots)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """Everything the user named."""

    root: str
    movies: tuple[Movie, ...]
    descriptions_file: str | None
    """TSV of audio descriptions."""
    subtitle_files: dict[str, str]
    """Movie id or shot name -> subtitle file."""


def in_time_order(shots: Sequence[str] | set[str]) -> list[str]:
    """Shot names by start time; names that are not shot names last."""

    def order(name: str) -> tuple[bool, str, str]:
        match = SHOT_NAME.match(name)
        return (match is None, match["start"] if match else "", name)

    return sorted(shots, key=order)


def seconds_of(timecode: str) -> float:
    """`01.02.03.456` -> 3723.456"""
    hours, minutes, seconds, milliseconds = map(int, timecode.split("."))
    return ((hours * 60 + minutes) * 60 + seconds) + milliseconds / 1000


def find_release(annotations: tuple[str, ...]) -> Release:
    """Look through the named folders for the parts of the release; every part but the shots or scenes may be absent.

    Raises:
        AnnotationError: a path is unreadable, a part cannot be parsed, or there are neither shots nor scenes.
    """
    files: list[tuple[Path, Path]] = []
    for named in map(Path, annotations):
        check_readable(named)
        files += [(named, path) for path in sorted(walk(named))] if named.is_dir() else [(named.parent, named)]
    documents: dict[str, Any] = {}
    shot_files: dict[str, dict[str, str]] = {}
    banks: dict[str, dict[str, list[str]]] = {}
    subtitles: dict[str, str] = {}
    descriptions = None
    for root, path in files:
        inside = path.relative_to(root).as_posix()
        stem = _composed(path.name.removesuffix(".json"))
        is_subtitle = path.suffix.lower() in _SUBTITLES or (
            path.suffix == ".json" and path.parent.name.lower().startswith("subtitle")
        )
        if path.name in ("movies_scenes.json", "data_split.json", "mad2plot.json", "mad2imdb.json"):
            documents[stem] = _object(path)
        elif is_subtitle:
            subtitles[_composed(path.name.removesuffix(path.suffix))] = str(path)
        elif path.suffix == ".json" and (match := SHOT_NAME.match(stem)):
            shot_files.setdefault(match["movie"], {})[stem] = str(path)
        elif path.suffix.lower() in (".csv", ".tsv") and "annotations" in path.name:
            descriptions = str(path)
        elif path.suffix.lower() in _PORTRAIT + _AUDIO and _is_character(path):
            banks.setdefault(_composed(path.parent.parent.name), {}).setdefault(path.parent.name, []).append(inside)
    scenes = {movie: tuple(_scenes(movie, listed)) for movie, listed in documents.get("movies_scenes", {}).items()}
    if not shot_files and not scenes:
        raise AnnotationError(
            f"{', '.join(annotations)}: neither shot files (<movie>_<start>-<end>.json) nor movies_scenes.json; "
            "name the release's folder, the one with Annotation_Shot_Desc_... in it"
        )
    splits = _splits(documents.get("data_split", {}))
    movies = tuple(
        Movie(
            movie_id=movie,
            split=splits.get(movie, "extra"),
            imdb_id=_text_of(documents.get("mad2imdb", {}), movie),
            synopsis=_text_of(documents.get("mad2plot", {}), movie),
            scenes=scenes.get(movie, ()),
            characters=tuple(_character(folder, names) for folder, names in sorted(banks.get(movie, {}).items())),
            shot_files=shot_files.get(movie, {}),
        )
        for movie in sorted({*shot_files, *scenes})
    )
    return Release(
        root=str(Path(annotations[0])), movies=movies, descriptions_file=descriptions, subtitle_files=subtitles
    )


def read_descriptions(path: str, movies: set[str]) -> dict[str, str]:
    """Audio descriptions by shot: tab-separated, no header, no quoting; sentences contain commas and quotes."""
    found = {}
    with Path(path).open("rb") as file:
        for line in file:
            name, _, sentence = _composed(decode(line)).rstrip("\r\n").partition("\t")
            match = SHOT_NAME.match(name.strip())
            if match and match["movie"] in movies and sentence:
                found[name.strip()] = sentence.strip()
    return found


def plain_name(name: str) -> str:
    """A name as people write it: folders have underscores, and file systems decompose accents."""
    return _composed(name.replace("_", " ")).strip()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _splits(document: dict[str, Any]) -> dict[str, str]:
    """Movie -> split; `Train` is train."""
    splits: dict[str, str] = {}
    for name, listed in document.items():
        if not isinstance(listed, list) or not all(isinstance(movie, str) for movie in listed):
            raise AnnotationError(f"data_split.json: {name} is not a list of movie ids: {str(listed)[:60]}")
        splits |= {_composed(movie): re.sub(r"\W", "_", name.lower()) for movie in listed}
    return splits


def _text_of(document: dict[str, Any], movie: str) -> str | None:
    """A movie's text in a document; anything but text counts as missing."""
    value = document.get(movie)
    return (value.strip() or None) if isinstance(value, str) else None


def _is_character(path: Path) -> bool:
    """Whether a picture or sound lies in a folder of the character bank, `<actor>-<character>`."""
    folder = path.parent.name
    in_bank = path.parent.parent.parent.name.lower().startswith("character_bank")
    return (in_bank or "-" in folder) and not SHOT_NAME.match(folder)


def _object(path: Path) -> dict[str, Any]:
    value, _ = read_document(path)
    if isinstance(value, dict):
        return {_composed(key): inner for key, inner in value.items()}
    raise AnnotationError(f"{path}: an object by movie or split is expected, this is {type(value).__name__}")


def _scenes(movie: str, listed: Any) -> Iterator[Scene]:
    if not isinstance(listed, dict):
        raise AnnotationError(f"movies_scenes.json: {movie} is {type(listed).__name__}, not an object of scenes")
    seen: set[str] = set()
    for position, (key, shots) in enumerate(listed.items(), start=1):
        match = _SCENE_KEY.match(key)
        if not isinstance(shots, list) or not all(isinstance(shot, str) for shot in shots):
            raise AnnotationError(f"movies_scenes.json: {movie}, {key!r}: a list of shot names is expected")
        number = match["number"] if match else str(position)
        unique = number if number not in seen else f"{number}_{position}"
        seen.add(unique)
        names = [re.sub(r"\.(avi|mp4|json)$", "", _composed(shot)) for shot in shots]
        yield Scene(
            scene_id=f"{movie}/{unique}",
            title=(match["title"] if match else key.strip()) or None,
            shots=tuple(in_time_order(names)),
        )


def _character(folder: str, files: list[str]) -> Character:
    """`Valerie_Tian-Su-Chin`: actor Valerie Tian, character Su-Chin; upstream also says Su, and Chin."""
    actor, _, rest = folder.partition("-") if "-" in folder else ("", "", folder)
    name = plain_name(rest)
    aliases = dict.fromkeys([name, plain_name(rest.partition("-")[0]), plain_name(rest.rpartition("-")[2])])
    portraits = sorted((f for f in files if f.lower().endswith(_PORTRAIT)), key=lambda f: ("/best." not in f, f))
    return Character(
        folder=folder,
        name=name,
        actor=plain_name(actor) or None,
        aliases=tuple(alias for alias in aliases if alias),
        portraits=tuple(portraits),
        audio=tuple(sorted(f for f in files if f.lower().endswith(_AUDIO))),
    )


def read_subtitles(path: str) -> list[tuple[float, float, str]]:
    """(start, end in seconds, text) of a subtitle file; JSON: a list of objects with start, end and text.

    Raises:
        AnnotationError: the file cannot be parsed.
    """
    if path.endswith(".json"):
        value, _ = read_document(Path(path))
        try:
            return [(float(line["start"]), float(line["end"]), (line["text"] or "").strip()) for line in value]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AnnotationError(
                f"{path}: a list of objects with start, end (seconds) and text is expected"
            ) from error
    text = decode(Path(path).read_bytes()).replace("\r\n", "\n")
    if not text.strip():
        return []
    try:
        import pysubs2
    except ImportError as error:
        raise AnnotationError(
            f"{path}: reading subtitles needs pysubs2: pip install 'civid_loader[subtitles]'"
        ) from error
    try:
        lines = pysubs2.SSAFile.from_string(text)
    except (pysubs2.exceptions.Pysubs2Error, ValueError) as error:
        raise AnnotationError(f"{path}: not a subtitle file; mend it or take it out of the folder") from error
    return [(line.start / 1000, line.end / 1000, line.plaintext.replace("\n", " ").strip()) for line in lines]
