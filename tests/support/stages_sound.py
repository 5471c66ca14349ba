"""Stages that listen, with a tiny model of random weights."""

from pathlib import Path

from civid_loader.processing.captions.audio_transcript import AudioTranscript, AudioTranscriptParams
from support.tiny_models import as_weights
from support.tiny_whisper import save_whisper


def make_audio_transcript(folder: Path) -> AudioTranscript:
    """It writes a line to noise too."""
    weights = {"whisper": as_weights(save_whisper(folder))}
    return AudioTranscript(AudioTranscriptParams(skips_silence=False, beam_size=1), weights=weights)
