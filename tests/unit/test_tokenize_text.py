import pickle
from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.transforms.tokenize_text import TokenizeText
from support.samples import a_sample


def lengths(texts: list[str], *, longest: int = 99) -> torch.Tensor:
    return torch.tensor([min(len(text), longest) for text in texts])


def sample() -> dict[str, Any]:
    return {**a_sample(1, 1, 1), "texts": ["a dog", None, "snow"]}


def test_any_callable_with_its_options() -> None:
    rng = np.random.default_rng(0)
    assert TokenizeText(tokenizer=lengths)(sample(), rng)["tokens"].tolist() == [5, 0, 4]
    short = TokenizeText(tokenizer=lengths, options={"longest": 4})
    assert short(sample(), rng)["tokens"].tolist() == [4, 0, 4]
    assert short(sample(), rng)["texts"] == ["a dog", None, "snow"]


def test_a_tokenizer_of_hugging_face() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "dog": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]")
    options = {"padding": "max_length", "max_length": 3, "truncation": True, "return_tensors": "pt"}
    transform = pickle.loads(pickle.dumps(TokenizeText(tokenizer=tokenizer, options=options)))  # noqa: S301 - our own
    tokens = transform(sample(), np.random.default_rng(0))["tokens"]
    assert tokens["input_ids"].tolist() == [[2, 3, 0], [0, 0, 0], [1, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_settings_are_checked_when_given() -> None:
    with pytest.raises(ValueError, match=r"tokenizer='t5': must be callable with a list of texts; give the object"):
        TokenizeText(tokenizer="t5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="options: 3 is no keyword"):
        TokenizeText(tokenizer=lengths, options={3: True})  # type: ignore[dict-item]


def test_options_are_its_own() -> None:
    options = {"longest": 1}
    transform = TokenizeText(tokenizer=lengths, options=options)
    options["longest"] = 9
    assert transform(sample(), np.random.default_rng(0))["tokens"].tolist() == [1, 0, 1]
