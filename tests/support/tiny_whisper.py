"""A Whisper too small to hear anything, with random weights, as CTranslate2 has models on the Hub."""

from pathlib import Path
from typing import Any, Final

import torch
import transformers
from ctranslate2.converters import TransformersConverter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from civid_loader.processing.pretrained import quietly

END: Final = "<|endoftext|>"
LANGUAGES: Final = ("<|en|>", "<|de|>")
_TASKS: Final = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>")
_TOKENS: Final = (END, "<|startoftranscript|>", *LANGUAGES, *_TASKS, "<|notimestamps|>")
_TIMES: Final = tuple(f"<|{step * 0.02:.2f}|>" for step in range(1501))


def save_whisper(folder: Path, *, seed: int = 0) -> Path:
    """The folder of the model; tokens are bytes."""
    vocabulary = {one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*_TOKENS, *_TIMES])
    number = {one: tokenizer.token_to_id(one) for one in _TOKENS}
    ends: dict[str, Any] = {
        "eos_token_id": number[END],
        "pad_token_id": number[END],
        "decoder_start_token_id": number["<|startoftranscript|>"],
    }
    size: dict[str, Any] = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    config = transformers.WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, **size, **ends
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.WhisperForConditionalGeneration(config)
    make: Any = transformers.GenerationConfig  # untyped
    model.generation_config = make(
        alignment_heads=[[0, 0]],
        lang_to_id={one: number[one] for one in LANGUAGES},
        is_multilingual=True,
        no_timestamps_token_id=number["<|notimestamps|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[],
        **ends,
    )
    with quietly():
        model.save_pretrained(folder / "transformers")
        wrap: Any = transformers.PreTrainedTokenizerFast
        fast = wrap(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
        fast.save_pretrained(folder / "transformers")
        made = TransformersConverter(str(folder / "transformers"), copy_files=["tokenizer.json"])
        return Path(made.convert(str(folder / "whisper")))
