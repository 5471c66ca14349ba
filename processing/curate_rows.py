"""Scenes of a film as rows of the schema: samples, and the spans of the film that are their clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import civid_loader
from civid_loader.media import VideoFacts
from civid_loader.processing.recipe import Recipe
from civid_loader.processing.segments.split import Span
from civid_loader.schema import empty_sample

SUBSET: Final = "curated"
TRUNCATED: Final = "video_truncated"


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmRows:
    """What all rows of a film have in common."""

    pointer: str
    """Of the film."""
    facts: VideoFacts
    recipe: Recipe
    annotator: str
    """Of likenesses."""

    def sample(
        self,
        number: int,
        spans: Sequence[Span],
        *,
        flags: Sequence[str],
        alike: Sequence[float | None] = (),
        entity: str | None = None,
    ) -> dict[str, Any]:
        """A sample, see `schema.SAMPLE_FEATURES`.

        Args:
            number: of the sample in its film.
            spans: its clips.
            flags: what is special about it.
            alike: of each clip the likeness to the scene before; None: not known.
            entity: what it is about; None: not known.
        """
        truncated = [TRUNCATED] if self.facts.is_truncated else []
        values = [*alike, *[None] * (len(spans) - len(alike))]
        return empty_sample() | {
            "sample_id": f"{self.pointer}#{number}",
            "dataset": self.recipe.dataset,
            "subset": SUBSET,
            "level": "sequence" if self.recipe.dataset == "civid" else "clip",
            "clips": [self._clip(i, span, values[i], entity) for i, span in enumerate(spans)],
            "flags": [*flags, *truncated],
            "provenance": {
                "annotation_file": self.pointer,
                "row_index": number,
                "upstream_version": f"civid_loader {civid_loader.__version__}, recipe {self.recipe.name}",
                "license": None,
            },
        }

    def _clip(self, index: int, span: Span, alike: float | None, entity: str | None) -> dict[str, Any]:
        source = {
            "platform": None,
            "category": None,
            "video_id": PurePosixPath(self.pointer).stem,
            "url": None,
            "start_seconds": span.start_seconds,
            "end_seconds": span.end_seconds,
            "start_frame": span.start_frame,
            "end_frame": span.end_frame,
        }
        media = {
            "width": self.facts.width,
            "height": self.facts.height,
            "fps": self.facts.fps,
            "duration_seconds": span.duration_seconds,
            "num_frames": span.end_frame - span.start_frame,
        }
        score = {"name": "similarity_to_scene_before", "unit": "cosine", "annotator": self.annotator, "value": alike}
        return {
            "clip_id": f"{self.pointer}:{span.start_frame}-{span.end_frame}",
            "index": index,
            "video": self.pointer,
            "trimmed": False,
            "source": source,
            "media": media,
            "captions": [] if entity is None else [_about_entity(entity)],
            "characters": [],
            "scores": [] if alike is None else [score],
        }


def _about_entity(entity: str) -> dict[str, Any]:
    window = {"start_seconds": None, "end_seconds": None}
    return {"kind": "main_object", "text": entity, **window, "annotator": "civid_loader:entity_segment"}
