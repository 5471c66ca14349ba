"""What is said in a clip, by Whisper (Radford et al. 2022, arXiv 2212.04356) as faster-whisper runs it.

Lines become captions of kind `subtitle` with their windows, which `moviebench_shot` reads where both run together.
MovieBench's own subtitles came from WhisperX large-v3 and pyannote; who speaks is not told here.

Legend: S samples.
"""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from civid_loader.errors import MissingDependencyError, VideoError
from civid_loader.processing.pretrained import unfit
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed
from civid_loader.sound import read_sound

_KIND: Final = "subtitle"
_RATE_HZ: Final = 16_000
_TICK_SECONDS: Final = 0.02
"""Of Whisper's times."""
_TIMEOUT_SECONDS: Final = 120.0
"""For reading the sound of a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioTranscriptParams:
    """Of `AudioTranscript`."""

    language: str | None = None
    """Code such as en; None: heard from the first 30 s."""
    beam_size: int = 5
    """Texts that are followed at once; 5 in Whisper's own evaluation."""
    skips_silence: bool = True
    """Leave out what a detector of voices (Silero) finds to be none: there Whisper makes words up."""

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"audio_transcript: beam_size={self.beam_size}: at least 1")


class AudioTranscript(Stage[AudioTranscriptParams]):
    """Subtitles."""

    name = "audio_transcript"
    version = 1
    Params = AudioTranscriptParams
    caption_kinds = (_KIND,)
    needs_video = True
    cost = "Whisper large-v3, 1.5 G parameters, 30 s of sound at a time"
    columns = (
        Column(name="speech_language", dtype="string", doc="Code of the language that is spoken."),
        Column(name="speech_language_probability", dtype="float32", doc="How sure that is, 0 to 1."),
        Column(name="speech_lines", dtype="int32", doc="Lines found; 0 where nobody speaks."),
        Column(name="speech_seconds", dtype="float32", unit="s", doc="How long they last together."),
    )

    _model: Any = None

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`; it looks at no frame."""
        return {}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        files = ("model.bin", "*.json", "*.txt")
        return {"whisper": ModelNeed(id="Systran/faster-whisper-large-v3", license="MIT", files=files)}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingDependencyError(
                "stage audio_transcript needs faster-whisper: pip install 'civid_loader[audio]'"
            ) from error
        weights = self.weights["whisper"]
        compute_type = "float16" if device == "cuda" else "float32"
        try:
            # A folder that lacks its tokenizer would be looked up on the Hub.
            if not (weights.path / "tokenizer.json").is_file():
                raise unfit(weights, "whisper", "its folder has no tokenizer.json")
            self._model = WhisperModel(str(weights.path), device=device, compute_type=compute_type)
        except (RuntimeError, ValueError) as error:
            raise unfit(weights, "whisper", f"it is no Whisper model of CTranslate2 ({error})") from error

    def teardown(self) -> None:
        """See `Stage`."""
        self._model = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        if clip.video is None:
            return {"reason": "there is no video file whose sound could be heard"}
        try:
            samples_S = read_sound(
                clip.video,
                rate_hz=_RATE_HZ,
                start_seconds=clip.span_seconds[0],
                duration_seconds=clip.duration_seconds,
                timeout_seconds=_TIMEOUT_SECONDS,
            )
        except VideoError as error:
            # Where the file lies is nobody's business.
            return {"reason": f"{type(error).__name__}: {error}".replace(clip.video.name, "the file")}
        if samples_S is None:
            return {"not_computable": "the file has no sound"}
        lines, told = self._model.transcribe(
            samples_S,
            language=self.params.language,
            beam_size=self.params.beam_size,
            vad_filter=self.params.skips_silence,
            temperature=0.0,  # others are drawn by chance
            condition_on_previous_text=False,  # a wrong line would be repeated to the end
        )
        captions = [
            self._caption(line, clip.duration_seconds)
            for line in lines
            # It hears 30 s at a time, filled up with silence, in which it may make words up.
            if line.text.strip() and line.start < clip.duration_seconds
        ]
        return {
            "captions": captions,
            "speech_language": told.language if captions else None,
            "speech_language_probability": float(told.language_probability) if captions else None,
            "speech_lines": len(captions),
            "speech_seconds": float(sum(one["end_seconds"] - one["start_seconds"] for one in captions)),
        }

    def _caption(self, line: Any, duration_seconds: float) -> Row:
        """A line as a caption of the schema, within the clip and not shorter than Whisper's clock ticks."""
        start = max(0.0, float(line.start))
        return {
            "kind": _KIND,
            "text": line.text.strip(),
            "start_seconds": start,
            "end_seconds": min(max(float(line.end), start + _TICK_SECONDS), duration_seconds),
            "annotator": f"civid_loader:{self.name}@{self.fingerprint()}",
        }
