"""CLIP from `open_clip`: its config, its text tower and its tokenizers."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from openvis_model.convolutional_stem import ConvolutionalStem
from openvis_model.vocabulary import split_words

Stem = Literal["patches", "convolutional"]

ARCHITECTURE = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")
"""Fields that describe a plain CLIP; some models of `open_clip` have more."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The CLIP that InstCLIP is built on.

    Attributes:
        model: name of an `open_clip` model. OpenAI's weights need the `-quickgelu` variant.
        architecture: description of a model that `open_clip` has no name for (embed_dim, vision_cfg, text_cfg, …).
        stem: how pixels become tokens: `patches` is CLIP's linear projection of each patch; `convolutional` is a small
            residual network, which lets a small CLIP learn from few images.
        words: words that a CLIP with its own tokenizer was trained with; empty for CLIP's byte-pair encoding.
        pixel_mean: mean RGB, in [0, 1], that the weights were trained with.
        pixel_std: standard deviation of RGB, in [0, 1], that the weights were trained with.

    Raises:
        ValueError: for a model or a field of the architecture that `open_clip` does not have, or words whose number
            does not match the size of the embedding table.
    """

    model: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    stem: Stem = "patches"
    words: tuple[str, ...] = ()
    pixel_mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    pixel_std: tuple[float, float, float] = OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise ValueError(
                f"clip: give either model or architecture, got model={self.model!r} and "
                f"{'an' if self.architecture else 'no'} architecture"
            )
        if self.model and self.model not in open_clip.list_models():
            raise ValueError(f"clip.model: open_clip has no model {self.model!r}; see open_clip.list_models()")
        check_names(self.architecture, ARCHITECTURE, "clip.architecture")
        for part, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
            check_names(self.architecture.get(part, {}), [f.name for f in fields(kind)], f"clip.architecture.{part}")
        if self.stem not in get_args(Stem):
            raise ValueError(f"clip.stem: unknown value {self.stem!r}; choose from {get_args(Stem)}")
        words: object = self.words
        if isinstance(words, str):
            raise ValueError(f"clip.words: expected several words, got the text {self.words!r}; give a tuple of words")
        size = self.architecture.get("text_cfg", {}).get("vocab_size")
        if self.words and size != WordTokenizer.vocabulary_size(self.words):
            raise ValueError(
                f"clip.words: {len(self.words)} words need architecture.text_cfg.vocab_size = "
                f"{WordTokenizer.vocabulary_size(self.words)}, got {size}"
            )


def check_names(values: Any, known: Collection[str], name: str) -> None:
    """Checks that values are fields with known names.

    Raises:
        ValueError: names the first unknown field and the known name nearest to it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected fields, got {values!r}")
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "remove it"
            raise ValueError(f"{name}.{key}: no such field; {remedy} (its value is {values[key]!r})")


def build_clip(config: ClipConfig) -> open_clip.CLIP:
    """Builds a CLIP with random weights.

    Raises:
        ValueError: if the model is not a plain CLIP, for example because its text tower comes from another library.
    """
    architecture = config.architecture or open_clip.get_model_config(config.model)
    if extra := sorted(set(architecture) - set(ARCHITECTURE)):
        raise ValueError(
            f"clip: {config.model or 'architecture'} is not a plain CLIP, it has {', '.join(extra)}; use e.g. ViT-B-32"
        )
    clip = open_clip.CLIP(**architecture)
    if config.stem == "convolutional":
        clip.visual.conv1 = ConvolutionalStem(clip.visual.conv1.out_channels, patch_size=clip.visual.patch_size[0])
    clip.visual.image_mean, clip.visual.image_std = config.pixel_mean, config.pixel_std
    return clip


@runtime_checkable
class Tokenizer(Protocol):
    """The tokenizer interface that `TextEncoder` uses."""

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without start and end of text."""

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Returns the token ids of texts with start and end, padded with 0; the end token has the largest id."""


class WordTokenizer:
    """A tokenizer with one id per word; it keeps the embedding table of a CLIP trained with few words small.

    Args:
        words: every known word, lower case.
        context_length: ids per text.
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.ids = {word: index for index, word in enumerate(words, start=2)}
        self.context_length = context_length
        self.start, self.end = 1, len(words) + 2

    @staticmethod
    def vocabulary_size(words: Sequence[str]) -> int:
        """Returns the number of rows of the embedding table: padding, start, the words, end."""
        return len(words) + 3

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text's words; punctuation is skipped.

        Raises:
            ValueError: for a text without words, or with words that the model does not know; lists them.
        """
        words = split_words(text)
        if not words:
            raise ValueError(f"vocabulary: {text!r} has no word that the model's CLIP can read; use letters")
        unknown = [word for word in words if word not in self.ids]
        if unknown:
            raise ValueError(
                f"vocabulary: the model's CLIP does not know {', '.join(map(repr, unknown))} in {text!r}; it was "
                f"trained with {len(self.ids)} words only ({', '.join(list(self.ids)[:8])}, …); "
                "use its words or another checkpoint"
            )
        return [self.ids[word] for word in words]

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Returns ids with start and end of text, padded with 0 to the context length."""
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            encoded = [self.start, *self.encode(text), self.end]
            row[: len(encoded)] = torch.tensor(encoded)
        return ids


class TextEncoder(nn.Module):
    """CLIP's text tower: texts in, unit-norm embeddings out.

    Args:
        clip: an `open_clip` model; only its text tower and logit scale are used.
        tokenizer: the tokenizer that the tower was trained with.

    Raises:
        ValueError: for a text tower without causal attention, or with another pooling than CLIP's.
    """

    def __init__(self, clip: open_clip.CLIP, tokenizer: Tokenizer) -> None:
        super().__init__()
        if clip.text_pool_type != "argmax" or clip.attn_mask is None:
            raise ValueError(
                "clip: expected causal text attention pooled at the end of text, got "
                f"pool_type={clip.text_pool_type!r}; use a model such as ViT-B-32"
            )
        self.tokenizer = tokenizer
        self.context_length: int = clip.context_length
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.logit_scale = clip.logit_scale
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)
        self.attn_mask: Tensor

    @property
    def identity(self) -> dict[str, object]:
        """Everything beside the weights that determines the embeddings of texts."""
        block = self.transformer.resblocks[0]
        return {
            "activation": type(block.mlp.gelu).__name__,
            "heads": block.attn.num_heads,
            "layers": len(self.transformer.resblocks),
            "context_length": self.context_length,
            "tokenizer": list(self.tokenizer.ids) if isinstance(self.tokenizer, WordTokenizer) else "bpe",
        }

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        """Embeds texts.

        Attention is causal and the embedding is read at the end of text. Positions beyond the longest text of the batch
        are therefore left out, which gives the same numbers as the full context and is several times faster for names.

        Raises:
            ValueError: for a text that is longer than the context, or has words that the tokenizer does not know.
        """
        for text in texts:
            length = len(self.tokenizer.encode(text)) + 2
            if length > self.context_length:
                raise ValueError(
                    f"vocabulary: {text[:60]!r}… takes {length} tokens, CLIP reads {self.context_length}; "
                    "shorten the name"
                )
        ids = self.tokenizer(texts).to(self.positional_embedding.device)
        end = ids.argmax(dim=-1)
        length = int(end.max()) + 1
        x = self.token_embedding(ids[:, :length]) + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        x = self.ln_final(x[torch.arange(len(x), device=x.device), end])
        return F.normalize(x @ self.text_projection, dim=-1)


def build_tokenizer(config: ClipConfig, context_length: int) -> Tokenizer:
    """Builds the tokenizer of a CLIP."""
    if config.words:
        return WordTokenizer(config.words, context_length)
    tokenizer: Tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    return tokenizer
