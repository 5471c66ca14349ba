"""MovieBench as published: one JSON per shot, scene lists, a character bank, and .avi shots by movie."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from civid_loader.demo.backdrops import paint_backdrop
from civid_loader.demo.moviebench_script import MOVIES, Character, Movie, Take
from civid_loader.demo.render import Shot, VideoFile
from civid_loader.demo.scene import Actor, Scene, make_scenes, reframe
from civid_loader.demo.sprites import paint_actor
from civid_loader.demo.wording import background, camera_movement, doing, main_object, place, short

SHOTS_DIR: Final = "Annotation_Shot_Desc_11.15_V2_160movies"
BANK_DIR: Final = "Character_Bank_All_11.16"

_PORTRAIT_PX: Final = 128
_JUNK: Final[Mapping[str, bytes]] = {
    ".DS_Store": b"\x00\x00\x00\x01Bud1",
    "representations_vgg_face.pkl": b"a cache of a face detector; never to be unpickled\n",
}


def write_moviebench(root: Path, *, rng: np.random.Generator) -> tuple[tuple[Path, ...], list[VideoFile]]:
    """Write the annotation tree and the portraits below `root`; returns the tree's folder and the videos to render."""
    tree = root / "annotations" / "MovieBench"
    tree.mkdir(parents=True, exist_ok=True)
    places = iter(make_scenes(rng, count=sum(len(_scene_numbers(movie)) for movie in MOVIES)))
    scene_lists: dict[str, dict[str, list[str]]] = {}
    sentences: list[str] = []
    files: list[VideoFile] = []
    for movie in MOVIES:
        settings = {number: next(places) for number in _scene_numbers(movie)}
        scenes = [_cast(rng, settings[take.scene], take=take, movie=movie) for take in movie.takes]
        _write_shots(tree / SHOTS_DIR / movie.movie_id, scenes, movie=movie)
        _write_bank(tree / BANK_DIR / movie.movie_id, movie, settings[min(settings)])
        _write_subtitles(tree / "Subtitles", movie)
        if movie.split:
            scene_lists[movie.movie_id] = _scene_list(movie, settings)
        sentences += [_audio_description(take, scene, movie) for take, scene in zip(movie.takes, scenes, strict=True)]
        files += _videos(movie, scenes, videos=root / "videos")
    _write_json(tree / "movies_scenes.json", scene_lists)
    split = {name: [movie.movie_id for movie in MOVIES if movie.split == name] for name in ("Train", "Test")}
    _write_json(tree / "data_split.json", split)
    _write_json(tree / "mad2plot.json", {movie.movie_id: movie.synopsis for movie in MOVIES})
    # Upstream's list also has bare numbers and movies without annotations.
    extra = {"1901": "tt99000104", "THE_CLOCKMAKERS_KITE": "tt99000105"}
    _write_json(tree / "mad2imdb.json", {movie.movie_id: movie.imdb_id for movie in MOVIES} | extra)
    table = "".join(f"{sentence}\n" for sentence in sentences)
    (tree / "annotations-original.csv").write_text(table, encoding="utf-8", newline="\n")
    return (tree,), files


def _scene_numbers(movie: Movie) -> list[int]:
    return sorted({take.scene for take in movie.takes})


def _cast(rng: np.random.Generator, setting: Scene, *, take: Take, movie: Movie) -> Scene:
    """The scene's place with the take's characters in it."""
    scene = reframe(rng, setting)
    spots = ((0.5, 0.5), (0.2, 0.68), (0.8, 0.34))
    actors = []
    for name, (x, y), extra in zip(take.characters, spots, (None, "sway", "bounce"), strict=False):
        character = movie.character(name)
        lead = scene.actors[0]
        size = lead.size if extra is None else 0.6 * lead.size
        motion = lead.motion if extra is None else "sway" if extra == "sway" else "bounce"
        actors.append(
            Actor(shape=character.shape, colour=character.colour, motion=motion, size=size, x=x, y=y, name=name)
        )
    return replace(scene, actors=tuple(actors) or scene.actors, label=take.label)


def _write_shots(folder: Path, scenes: Sequence[Scene], *, movie: Movie) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for take, scene in zip(movie.takes, scenes, strict=True):
        if not take.has_json:
            continue
        top = f"{scene.mood.capitalize()} palette"
        description = {
            "Characters": {
                actor.name: f"{actor.name}, {_looks(actor)} with two dark eyes, {doing(actor)}."
                for actor in scene.actors
                if actor.name
            },
            "Style Elements": ["Flat paper-cut shapes", top, "Soft shadows and white rims"][: take.num_style_elements],
            "Plot": main_object(scene),
            "Background Description": background(scene),
            "Camera Motion": camera_movement(scene),
        }
        path = folder / f"{take.name(movie)}.json"
        path.write_text(
            json.dumps(description, indent=4, ensure_ascii=False) + take.trailing_text, encoding="utf-8", newline="\n"
        )


def _write_bank(folder: Path, movie: Movie, setting: Scene) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, junk in _JUNK.items():
        (folder / name).write_bytes(junk)
    for number, character in enumerate(movie.characters):
        if character.actor is None:
            continue
        person = folder / f"{character.actor}-{character.name.replace(' ', '_')}"
        person.mkdir(exist_ok=True)
        for turn, still in enumerate(character.stills):
            setting = replace(setting, texture_seed=setting.texture_seed + number)
            _portrait(character, setting, degrees=8 * turn).save(person / still, quality=88)


def _portrait(character: Character, setting: Scene, *, degrees: int) -> Image.Image:
    actor = Actor(
        shape=character.shape, colour=character.colour, motion="still", size=0.7, x=0.5, y=0.5, name=character.name
    )
    image = paint_backdrop(setting, size=(2 * _PORTRAIT_PX, 2 * _PORTRAIT_PX))
    sprite = paint_actor(actor, height_px=round(1.4 * _PORTRAIT_PX)).rotate(degrees, Image.Resampling.BICUBIC)
    image.paste(sprite, ((image.width - sprite.width) // 2, (image.height - sprite.height) // 2), mask=sprite)
    return image.reduce(2)


def _write_subtitles(folder: Path, movie: Movie) -> None:
    """SubRip with CRLF, times in the movie."""
    if not movie.subtitles:
        return
    folder.mkdir(parents=True, exist_ok=True)
    cues = (
        f"{number}\n{_srt_clock(start)} --> {_srt_clock(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(movie.subtitles, start=1)
    )
    (folder / f"{movie.movie_id}.srt").write_text("\n".join(cues), encoding="utf-8", newline="\r\n")


def _scene_list(movie: Movie, settings: Mapping[int, Scene]) -> dict[str, list[str]]:
    """Scene title -> shot names, in the order of the script, which is not always the order in time."""
    titles = {}
    for number, setting in settings.items():
        if number > 0:
            title = f"Sence {number}: {place(setting).capitalize()} in {setting.mood} colours."
            titles[title] = [take.name(movie) for take in movie.takes if take.scene == number]
    return titles


def _audio_description(take: Take, scene: Scene, movie: Movie) -> str:
    """A line of the tab-separated table; names are masked, as LSMDC does."""
    sentence = short(scene)
    for character in movie.characters:
        sentence = sentence.replace(character.name, "SOMEONE")
    return f"{take.name(movie)}\t{take.aside}{sentence}"


def _videos(movie: Movie, scenes: Sequence[Scene], *, videos: Path) -> list[VideoFile]:
    files = []
    for take, scene in zip(movie.takes, scenes, strict=True):
        if take.has_video:
            start, end = take.span
            shot = Shot(scene=scene, duration_seconds=(end - start) / 1000)
            path = videos / movie.movie_id / f"{take.name(movie)}.avi"
            files.append(VideoFile(path=path, shots=(shot,), size=movie.size, codec=movie.codec))
    return files


def _looks(actor: Actor) -> str:
    article = "an" if actor.colour[0] in "aeiou" else "a"
    return f"{article} {actor.colour} {actor.shape}"


def _srt_clock(millis: int) -> str:
    return f"{millis // 3_600_000:02d}:{millis // 60_000 % 60:02d}:{millis // 1000 % 60:02d},{millis % 1000:03d}"


def _write_json(path: Path, value: object) -> None:
    """As upstream writes it: indented, no newline at the end."""
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8", newline="\n")
