"""Models that look at pictures and write, too small to write anything but noise, saved as those on the Hub are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

_IMAGE, _VIDEO, _START, _END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", _IMAGE, _VIDEO, _START, _END)
_NUM_TOKENS: Final = 320
_TEXT: Final[dict[str, Any]] = {
    "vocab_size": _NUM_TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": 258,
    # Else answers hardly depend on the question: it is small beside what the last token says.
    "initializer_range": 0.2,
}
_auto: Final[Any] = transformers


def _tokenizer() -> Any:
    """Bytes are tokens."""
    vocabulary = {one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return _auto.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=_SPECIAL
    )


def _template(image: str, video: str) -> str:
    """As those of Qwen."""
    return (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for one in message.content %}"
        "{% if one.type == 'image' %}" + image + "{% elif one.type == 'video' %}" + video + "{% else %}{{ one.text }}"
        "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% endif %}"
    )


def _ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": _IMAGE, "video_token_id": _VIDEO, "vision_start_token_id": _START}
    names["vision_end_token_id"] = _END
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _save(folder: Path, model: Any, processor: Any) -> Path:
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_qwen3_vl(folder: Path, *, seed: int = 0) -> Path:
    """Of pictures and videos; tells the model when frames are."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0], "initializer_range": 0.2,
    }  # fmt: skip
    text = {**_TEXT, "head_dim": 16, "rope_parameters": rope}
    config = _auto.Qwen3VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    # Sizes in pixels of all frames together: 2 of 32 x 32 at least.
    videos = _auto.Qwen3VLVideoProcessor(size={"shortest_edge": 2048, "longest_edge": 65536})
    images = _auto.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 1024, "longest_edge": 16384})
    template = _template(f"{_START}{_IMAGE}{_END}", f"{_START}{_VIDEO}{_END}")
    processor = _auto.Qwen3VLProcessor(images, tokenizer, videos, chat_template=template)
    return _save(folder, _auto.Qwen3VLForConditionalGeneration(config), processor)


def save_qwen2_5_vl(folder: Path, *, seed: int = 0) -> Path:
    """Of pictures and videos; places frames in time."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2, "initializer_range": 0.2,
    }  # fmt: skip
    text = {**_TEXT, "rope_parameters": rope}
    config = _auto.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    size = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    template = _template(f"{_START}{_IMAGE}{_END}", f"{_START}{_VIDEO}{_END}")
    processor = _auto.Qwen2_5_VLProcessor(
        _auto.Qwen2VLImageProcessor(size=size), tokenizer, _auto.Qwen2VLVideoProcessor(size=size),
        chat_template=template,
    )  # fmt: skip
    return _save(folder, _auto.Qwen2_5_VLForConditionalGeneration(config), processor)


def save_llava(folder: Path, *, seed: int = 0) -> Path:
    """Of pictures only."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "projection_dim": 16, "initializer_range": 0.2,
    }  # fmt: skip
    text = {"model_type": "llama", **_TEXT}
    image = _ids(tokenizer)["image_token_id"]
    config = _auto.LlavaConfig(text_config=text, vision_config=vision, image_token_index=image)
    size: Mapping[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    tokenizer.image_token = _IMAGE
    processor = _auto.LlavaProcessor(
        _auto.CLIPImageProcessor(**size), tokenizer, patch_size=8, vision_feature_select_strategy="default",
        chat_template=_template(_IMAGE, ""), image_token=_IMAGE, num_additional_image_tokens=1,
    )  # fmt: skip
    return _save(folder, _auto.LlavaForConditionalGeneration(config), processor)
