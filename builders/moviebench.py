"""MovieBench (Wu et al., CVPR 2025): movies, their scenes and shots, and a bank of their characters."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from civid_loader.errors import AnnotationError
from civid_loader.schema import arrow_schema, caption, empty_sample
from civid_loader.upstream.builder import UpstreamBuilder, check_field_map
from civid_loader.upstream.documents import without_surrogates
from civid_loader.upstream.movies import SHOT_NAME, Movie, Release, Scene, find_release, plain_name, seconds_of
from civid_loader.upstream.records import Chunk, Context, Piece, Rejected, Source, Terms
from civid_loader.upstream.rows import point_to_files
from civid_loader.upstream.shots import ShotTexts, read_shot

MOVIES_PER_CHUNK: Final = 32
ROWS_PER_PIECE: Final = 2000
BYTES_PER_SHOT: Final = 1500
"""About the size of a shot file: enough for a progress bar."""
TEXT_KINDS: Final = {
    "Plot": "plot",
    "Background Description": "background",
    "Camera Motion": "camera_movement",
    "Style Elements": "style",
}
ANNOTATOR: Final = "upstream:gpt-4o"


class MovieBench(UpstreamBuilder):
    """The released tree. Subset `scenes`: one row is one scene; subset `shots`: one row is one shot."""

    BUILDER_CONFIGS = [UpstreamBuilder.BUILDER_CONFIG_CLASS(name=name) for name in ("scenes", "shots")]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = "scenes"
    TITLE = "MovieBench"
    HOMEPAGE = "https://weijiawu.github.io/MovieBench/"
    TERMS = Terms(
        license="moviebench-unstated",
        text="The authors state no licence. The videos come under the MPII-MD / LSMDC agreement (on request, for "
        "research); portraits are film stills of real people. Keep what you build from it private, and publish neither "
        "videos nor images.",
    )
    SUBSETS = ("scenes", "shots")
    NEEDS = (frozenset({"Plot", "Characters"}),)
    FIELDS = (*TEXT_KINDS, "Characters")

    @classmethod
    def plan(cls, source: Source) -> list[Chunk]:
        cls.check_subset(source.subset)
        check_field_map(source, cls.FIELDS)
        subset = source.subset or "scenes"
        release = find_release(source.annotations)
        movies = [movie for movie in release.movies if subset == "shots" or movie.scenes]
        if not movies:
            raise AnnotationError(
                f"{release.root}: movies_scenes.json is missing or empty, so there are no scenes; --subset shots?"
            )
        chunks = []
        for split in dict.fromkeys(("train", "test", *(movie.split for movie in movies))):
            members = iter([movie for movie in movies if movie.split == split])
            while group := tuple(islice(members, MOVIES_PER_CHUNK)):
                chunks.append(_chunk("annotations", split, subset, release, group))
        for table in ("characters", "movies"):
            chunks.append(_chunk(table, "train", subset, release, release.movies))
        return chunks

    @classmethod
    def read(cls, chunk: Chunk, source: Source, context: Context) -> Iterator[Piece]:
        release, movies = chunk.payload
        if chunk.table != "annotations":
            make = _characters if chunk.table == "characters" else _movie_rows
            yield Piece(rows=pa.Table.from_pylist(make(movies), schema=arrow_schema(chunk.table)))
            return
        rejected: list[Rejected] = []
        texts = ShotTexts(release, {movie.movie_id for movie in movies}, rejected)
        notes: Counter[str] = Counter()
        make_rows = _scene_rows if chunk.subset == "scenes" else _shot_rows
        rows = (row for movie in movies for row in make_rows(movie, texts, source, rejected, notes))
        while batch := list(islice(rows, ROWS_PER_PIECE)):
            point_to_files(batch, context)
            table = pa.Table.from_pylist(batch, schema=arrow_schema("annotations"))
            yield Piece(rows=table, rejected=rejected[:], notes=notes.copy())
            rejected.clear()
            notes.clear()
        yield Piece(rows=arrow_schema("annotations").empty_table(), rejected=rejected, notes=notes)


def _chunk(table: str, split: str, subset: str, release: Release, movies: tuple[Movie, ...]) -> Chunk:
    num_bytes = sum(len(movie.shots) for movie in movies) * BYTES_PER_SHOT
    return Chunk(table=table, split=split, subset=subset, file="", num_bytes=num_bytes, payload=(release, movies))


def _scene_rows(
    movie: Movie, texts: ShotTexts, source: Source, rejected: list[Rejected], notes: Counter[str]
) -> Iterator[dict[str, Any]]:
    place = {shot: i for i, shot in enumerate(movie.shots)}
    in_scenes = {shot for scene in movie.scenes for shot in scene.shots}
    notes["shots in no scene (build --subset shots for them)"] += len(place.keys() - in_scenes)
    for scene_index, scene in enumerate(movie.scenes):
        bad = next((problem for shot in scene.shots if (problem := _problem(shot))), None)
        if bad or not scene.shots:
            reason = bad or "a scene without shots"
            rejected.append(
                Rejected(
                    file="movies_scenes.json",
                    row_index=scene_index,
                    reason=reason,
                    raw=f"{scene.scene_id} {scene.title}",
                )
            )
            continue
        row = _row(movie, f"moviebench/scenes/{scene.scene_id}", "scenes", "scene", "movies_scenes.json", scene_index)
        row["hierarchy"] |= {"scene_id": scene.scene_id, "scene_index": scene_index}
        row["captions"] = _about_scene(movie, scene)
        _fill(row, scene.shots, movie, texts, source, rejected, notes)
        yield row


def _shot_rows(
    movie: Movie, texts: ShotTexts, source: Source, rejected: list[Rejected], notes: Counter[str]
) -> Iterator[dict[str, Any]]:
    scene_of = {shot: (i, scene) for i, scene in enumerate(movie.scenes) for shot in scene.shots}
    for position, shot in enumerate(movie.shots):
        if problem := _problem(shot):
            rejected.append(Rejected(file="movies_scenes.json", row_index=position, reason=problem, raw=shot))
            continue
        row = _row(movie, f"moviebench/shots/{shot}", "shots", "clip", texts.file_of(movie, shot), position)
        row["hierarchy"]["sequence_index"] = position
        if shot in scene_of:
            scene_index, scene = scene_of[shot]
            row["hierarchy"] |= {"scene_id": scene.scene_id, "scene_index": scene_index}
            row["captions"] = _about_scene(movie, scene)[:1] if scene.title else []
        _fill(row, (shot,), movie, texts, source, rejected, notes)
        yield row


def _problem(shot: str) -> str | None:
    match = SHOT_NAME.match(shot)
    if not match:
        return f"{shot!r} is not a shot name (<movie>_<HH.MM.SS.mmm>-<HH.MM.SS.mmm>)"
    if seconds_of(match["end"]) <= seconds_of(match["start"]):
        return f"shot {shot!r} ends before it starts"
    return None


def _row(movie: Movie, sample_id: str, subset: str, level: str, file: str, row_index: int) -> dict[str, Any]:
    return empty_sample() | {
        "sample_id": without_surrogates(sample_id),
        "dataset": "moviebench",
        "subset": subset,
        "level": level,
        "hierarchy": {"movie_id": movie.movie_id, "movie_title": movie.title, "imdb_id": movie.imdb_id},
        "provenance": {"annotation_file": file, "row_index": row_index, "license": MovieBench.TERMS.license},
    }


def _about_scene(movie: Movie, scene: Scene) -> list[dict[str, Any]]:
    captions = [caption("scene_title", scene.title, ANNOTATOR)] if scene.title else []
    synopsis = (movie.synopsis or "").strip()
    return [*captions, caption("synopsis", synopsis, "upstream:imdb")] if synopsis else captions


def _fill(
    row: dict[str, Any],
    shots: tuple[str, ...],
    movie: Movie,
    texts: ShotTexts,
    source: Source,
    rejected: list[Rejected],
    notes: Counter[str],
) -> None:
    """Put the shots into the row as clips, with everything known of each."""
    flags: dict[str, None] = {"repeated_shot": None} if len(set(shots)) < len(shots) else {}
    in_bank = {alias for character in movie.characters for alias in character.aliases}
    row["clips"] = []
    for index, shot in enumerate(dict.fromkeys(shots)):
        match = SHOT_NAME.match(shot)
        assert match
        start, end = seconds_of(match["start"]), seconds_of(match["end"])
        annotation, flag, reason = read_shot(movie.shot_files.get(shot))
        if flag:
            flags[flag] = None
        if reason:
            rejected.append(Rejected(file=texts.file_of(movie, shot), row_index=0, reason=reason, raw=shot))
        captions, people = _captions(annotation, source, notes)
        if in_bank and any(person["name"] not in in_bank for person in people):
            flags["character_not_in_bank"] = None
        row["clips"].append(
            {
                "clip_id": shot,
                "index": index,
                "video": f"{movie.movie_id}/{shot}.avi",
                "trimmed": True,
                "source": {
                    "platform": "lsmdc", "video_id": movie.movie_id, "start_seconds": start, "end_seconds": end,
                },
                "captions": captions + texts.captions(movie, shot, start_seconds=start, end_seconds=end),
                "characters": people,
                "scores": [],
            }
        )  # fmt: skip
    row["flags"] = list(flags)


def _captions(
    annotation: dict[str, Any], source: Source, notes: Counter[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(captions, characters) of a shot annotation."""
    captions = []
    for name, kind in TEXT_KINDS.items():
        value = annotation.get(source.renamed(name))
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                captions.append(caption(kind, without_surrogates(text).strip(), ANNOTATOR))
    known = {source.renamed(name) for name in MovieBench.FIELDS}
    notes.update(f"key not read: {key}" for key in annotation if key not in known)
    people = annotation.get(source.renamed("Characters")) or {}
    if not isinstance(people, (dict, list)):
        notes[f"Characters not read: {type(people).__name__}, not an object"] += 1
        people = {}
    described = people.items() if isinstance(people, dict) else ((name, None) for name in people)
    return captions, [
        {"name": plain_name(name), "description": (text or "").strip() or None}
        for name, text in described
        if isinstance(name, str) and name.strip() and (text is None or isinstance(text, str))
    ]


def _characters(movies: tuple[Movie, ...]) -> list[dict[str, Any]]:
    return [
        {
            "movie_id": movie.movie_id,
            "character_id": f"{movie.movie_id}/{plain_name(character.folder).replace(' ', '_')}",
            "name": character.name or None,
            "actor": character.actor,
            "aliases": list(character.aliases),
            "portraits": list(character.portraits),
            "audio": list(character.audio),
        }
        for movie in movies
        for character in movie.characters
    ]


def _movie_rows(movies: tuple[Movie, ...]) -> list[dict[str, Any]]:
    return [
        {
            "movie_id": movie.movie_id,
            "title": movie.title or None,
            "imdb_id": movie.imdb_id,
            "synopsis": (movie.synopsis or "").strip() or None,
            "scene_ids": [scene.scene_id for scene in movie.scenes],
        }
        for movie in movies
    ]
