"""Models too small to be good for anything, with random weights, saved as those on the Hub are.

Legend: D dimensions of the embedding.
"""
# ruff: noqa: N803 - tensors carry their shape.

import json
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from civid_loader.processing.weights import ModelNeed, Weights, find_weights

DIM: Final = 16
"""Of CLIP embeddings."""
SIDE_PX: Final = 32
"""That the encoders take."""
MAX_TOKENS: Final = 20
_VISION: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE_PX,
    "patch_size": 8,
}
_PREPROCESSOR: Final[dict[str, Any]] = {
    "size": {"shortest_edge": SIDE_PX},
    "crop_size": {"height": SIDE_PX, "width": SIDE_PX},
    "do_center_crop": True,
    "image_mean": [0.48, 0.45, 0.40],
    "image_std": [0.26, 0.26, 0.27],
}

_KERNELS: Final[dict[str, Any]] = {
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    **{f"vertical_long_to_small_conv_{name}ratio": [[3, 1], [1, 1], [1, 0]] for name in ("long", "mid", "short")},
    **{f"horizontal_small_to_long_conv_{name}ratio": [[1, 3], [1, 1], [0, 1]] for name in ("long", "mid", "short")},
    **{f"symmetric_conv_long_{name}ratio": [[3, 3], [1, 1], [1, 1]] for name in ("long", "mid", "short")},
}
"""Size, stride and padding, of the detector of text."""


def as_weights(path: Path, role: str = "model") -> Weights:
    """Weights of a file or folder, found as those a user names."""
    need = ModelNeed(id="none/none", license="none")
    return find_weights(role, need, given=str(path), may_download=False)


def clip_config(seed: int) -> transformers.CLIPConfig:
    """Of a tiny CLIP; the random state is set too."""
    torch.manual_seed(seed)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 320,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
    }
    return transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=DIM)


def save_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP with its tokenizer."""
    transformers.CLIPModel(clip_config(seed)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return _add_preprocessor(folder)


def save_dino(folder: Path, *, seed: int = 0, version: int = 1) -> Path:
    """A DINO, version 1 or 2."""
    torch.manual_seed(seed)
    if version == 1:
        transformers.ViTModel(transformers.ViTConfig(**_VISION), add_pooling_layer=False).save_pretrained(folder)
    else:
        sizes = {key: value for key, value in _VISION.items() if key != "intermediate_size"}
        transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(folder)
    return _add_preprocessor(folder)


def save_siglip(folder: Path, *, seed: int = 0) -> Path:
    """The image half of a SigLIP, which stretches pictures."""
    torch.manual_seed(seed)
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_VISION)).save_pretrained(folder)
    folder = _add_preprocessor(folder)
    said = {**_PREPROCESSOR, "size": {"height": SIDE_PX, "width": SIDE_PX}, "crop_size": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def save_safety_checker(folder: Path, *, seed: int = 0, bar: float = 0.0) -> Path:
    """A safety checker; `bar` is added to the random thresholds of its concepts."""
    config = clip_config(seed)
    trunk = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**_VISION, projection_dim=DIM))
    state = {f"vision_model.{key}" if key.startswith("vision_model.") else key: v for key, v in _state(trunk).items()}
    state |= {
        "concept_embeds": torch.randn(17, DIM),
        "special_care_embeds": torch.randn(3, DIM),
        "concept_embeds_weights": 0.2 * torch.rand(17) + bar,
        "special_care_embeds_weights": 0.2 * torch.rand(3) + bar,
    }
    config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors")
    return _add_preprocessor(folder)


def save_linear_head(path: Path, weight_D: torch.Tensor, bias: float = 0.0) -> Path:
    """An aesthetic head of version 1."""
    torch.save({"weight": weight_D[None].clone(), "bias": torch.tensor([bias])}, path)
    return path


def mlp_head(seed: int = 0) -> torch.nn.Sequential:
    """An aesthetic head of version 2: linear layers and dropout, no activations."""
    torch.manual_seed(seed)
    sizes = ((DIM, 12), (12, 8), (8, 6), (6, 4), (4, 1))
    one, two, three, four, five = (torch.nn.Linear(*size) for size in sizes)
    dropout = torch.nn.Dropout
    return torch.nn.Sequential(one, dropout(0.2), two, dropout(0.2), three, dropout(0.1), four, five)


def save_mlp_head(path: Path, *, seed: int = 0) -> Path:
    """The same in a file: .pth, else a folder with a .safetensors."""
    state = {f"layers.{key}": value for key, value in _state(mlp_head(seed)).items()}
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        path.mkdir(parents=True, exist_ok=True)
        save_file(state, path / "model.safetensors")
    return path


def save_text_detector(folder: Path, *, seed: int = 0) -> Path:
    """A detector of text as PP-OCRv5 has it."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 4, 8],
        stage_in_channels=[8, 8, 8, 8],
        stage_mid_channels=[4, 4, 4, 4],
        stage_out_channels=[8, 8, 8, 8],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        **sizes,
    )
    config = transformers.PPOCRV5ServerDetConfig(
        backbone_config=backbone,
        neck_out_channels=16,
        intraclass_block_config=_KERNELS,
        scale_factor_list=[1, 2, 4, 8],
        kernel_list=[3, 2, 2],
    )
    model = transformers.PPOCRV5ServerDetForObjectDetection(config)
    for layer in model.modules():  # that its answers are not 0.5 for every pixel
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    transformers.PPOCRV5ServerDetImageProcessor().save_pretrained(folder)
    return folder


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _add_preprocessor(folder: Path) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))
    return folder


def _tokenizer() -> Any:
    """Bytes are tokens; a text ends with its end token, also when it is cut."""
    vocabulary = {one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"<start>": 256, "<end>": 257}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 256), ("<end>", 257)]
    )
    kind: Any = transformers.PreTrainedTokenizerFast
    return kind(
        tokenizer_object=made, bos_token="<start>", eos_token="<end>", pad_token="<end>", model_max_length=MAX_TOKENS
    )
