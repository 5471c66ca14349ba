"""What is known of one MovieBench shot besides its name: its annotation, audio description and subtitles."""

from pathlib import Path
from typing import Any

from civid_loader.errors import AnnotationError
from civid_loader.schema import caption
from civid_loader.upstream.documents import read_document, without_surrogates
from civid_loader.upstream.movies import Movie, Release, read_descriptions, read_subtitles
from civid_loader.upstream.records import Rejected


class ShotTexts:
    """Audio descriptions and subtitles of some movies; subtitle files are read when first needed.

    A subtitle file that cannot be read is added to `rejected`; its shots have none.
    """

    def __init__(self, release: Release, movies: set[str], rejected: list[Rejected]) -> None:
        self._root = release.root
        self._descriptions = read_descriptions(release.descriptions_file, movies) if release.descriptions_file else {}
        self._subtitle_files = release.subtitle_files
        self._rejected = rejected
        self._subtitles: dict[str, list[tuple[float, float, str]]] = {}

    def file_of(self, movie: Movie, shot: str) -> str:
        """The shot's annotation file, relative to the release; where it has none, the file that lists it."""
        path = movie.shot_files.get(shot)
        if path is None:
            return "movies_scenes.json"
        return (
            Path(path).relative_to(self._root).as_posix() if Path(path).is_relative_to(self._root) else Path(path).name
        )

    def captions(self, movie: Movie, shot: str, *, start_seconds: float, end_seconds: float) -> list[dict[str, Any]]:
        """CAPTION structs; windows relative to the shot. A movie's subtitles run on movie time, a shot's on its own."""
        found = []
        if description := without_surrogates(self._descriptions.get(shot, "")).strip():
            found.append(caption("audio_description", description, "upstream:lsmdc"))
        for name, origin in ((shot, 0.0), (movie.movie_id, start_seconds)):
            for start, end, text in self._lines(name):
                first = max(round(start - origin, 3), 0.0)
                last = min(round(end - origin, 3), round(end_seconds - start_seconds, 3))
                if first < last and text:
                    line = caption("subtitle", text, "user:subtitles", start_seconds=first, end_seconds=last)
                    found.append(line)
        return found

    def _lines(self, name: str) -> list[tuple[float, float, str]]:
        if name not in self._subtitle_files:
            return []
        if name not in self._subtitles:
            path = self._subtitle_files[name]
            try:
                self._subtitles[name] = read_subtitles(path)
            except AnnotationError as error:
                self._subtitles[name] = []
                reason = str(error).removeprefix(f"{path}: ")
                self._rejected.append(Rejected(file=Path(path).name, row_index=0, reason=reason, raw=name))
        return self._subtitles[name]


def read_shot(path: str | None) -> tuple[dict[str, Any], str | None, str | None]:
    """(annotation, flag, reason it could not be read) of a shot file; a shot without one keeps its place."""
    if path is None:
        return {}, "missing_shot_annotation", None
    try:
        value, has_more = read_document(Path(path))
    except AnnotationError as error:
        return {}, "unreadable_shot_annotation", str(error).removeprefix(f"{path}: ")
    if not isinstance(value, dict):
        return {}, "unreadable_shot_annotation", f"a shot annotation is an object, not {type(value).__name__}"
    return value, "text_after_annotation" if has_more else None, None
