"""Names chosen at run time and their embeddings (OpenVIS, Eq. 4)."""

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openvis_model.clip import TextEncoder, split_words
from openvis_model.fingerprint import tensor_fingerprint

PROMPTS = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""The 14 prompts of ViLD (Gu et al. 2022) as OVSeg uses them (Liang et al. 2022), which the paper ensembles."""


@dataclass(frozen=True)
class Vocabulary:
    """Categories to look for, each with one or more names; the first name is the one shown.

    Names are kept with single spaces and none around them; names that differ in case alone are the same.

    Raises:
        ValueError: without categories, with an empty name, with a name that stands twice, or with text where a sequence
            of names is meant.
    """

    categories: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        sequences: tuple[object, ...] = (self.categories, *self.categories)
        for sequence in sequences:
            if isinstance(sequence, str):
                raise ValueError(f"vocabulary: {sequence!r} stands where a sequence is meant; write ({sequence!r},)")
        if not self.categories:
            raise ValueError("vocabulary: no categories; give at least one name")
        categories = tuple(tuple(" ".join(name.split()) for name in names) for names in self.categories)
        owner: dict[str, int] = {}
        for index, names in enumerate(categories):
            if not names or not all(names):
                raise ValueError(f"vocabulary: category {index} has an empty name ({list(names)}); remove it")
            for name in names:
                if (key := name.casefold()) in owner:
                    raise ValueError(
                        f"vocabulary: {name!r} stands twice (categories {owner[key]} and {index}); remove one of them"
                    )
                owner[key] = index
        object.__setattr__(self, "categories", categories)

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The shown name of each category."""
        return tuple(names[0] for names in self.categories)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "Vocabulary":
        """One category per line, synonyms separated by commas; blank lines and lines that start with # are skipped.

        Raises:
            ValueError: for one text instead of several lines, or names that `Vocabulary` refuses.
        """
        if isinstance(lines, str):
            raise ValueError(f"vocabulary: expected several lines, got the text {lines[:60]!r}; use its splitlines()")
        kept = (line.strip() for line in lines)
        return cls(tuple(tuple(line.split(",")) for line in kept if line and not line.startswith("#")))

    @classmethod
    def read(cls, path: str | Path) -> "Vocabulary":
        """Reads a UTF-8 text file of the form that `from_lines` takes.

        Raises:
            ValueError: names the file and what is wrong with it.
        """
        try:
            return cls.from_lines(Path(path).read_text(encoding="utf-8-sig").splitlines())
        except OSError as error:
            raise ValueError(f"vocabulary: cannot read {path} ({error.strerror}); correct the path") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"vocabulary: {path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def prompt_words(names: Iterable[str]) -> tuple[str, ...]:
    """Every word that the prompts of these names are made of, for a CLIP with a vocabulary of its own."""
    return tuple(sorted({word for text in (*PROMPTS, *names) for word in split_words(text)}))


@dataclass(frozen=True)
class VocabularyEmbedding:
    """A vocabulary in CLIP's embedding space.

    Attributes:
        names: the shown name of each category.
        embeddings: E, one unit-norm row per category.
        logit_scale: CLIP's learned inverse temperature.
    """

    names: tuple[str, ...]
    embeddings: Float[Tensor, "K D"]
    logit_scale: float

    def probabilities(self, instance_tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        """Class probabilities softmax(logit_scale · I Eᵀ) of unit-norm instance tokens (Eq. 4)."""
        return (self.logit_scale * instance_tokens @ self.embeddings.mT).softmax(dim=-1)


@torch.no_grad()
def embed_vocabulary(
    vocabulary: Vocabulary, encoder: TextEncoder, *, batch_size: int = 512, cache: str | Path | None = None
) -> VocabularyEmbedding:
    """Embeds every name with every prompt; prompts, then synonyms, are averaged and normalised again.

    Args:
        vocabulary: the categories.
        encoder: CLIP's text tower.
        batch_size: texts per forward pass.
        cache: folder that keeps embeddings between runs, keyed by the content of text tower, prompts and names; a file
            in it that cannot be read is made again.

    Raises:
        ValueError: for a name that the text tower cannot read (too long, without words, or with unknown ones).
    """
    file = Path(cache) / f"vocabulary-{_content_key(vocabulary, encoder)}.safetensors" if cache else None
    embeddings = _read_embeddings(file) if file else None
    if embeddings is None:
        embeddings = _embed(vocabulary, encoder, batch_size)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{uuid.uuid4().hex}.partial")
            save_file({"embeddings": embeddings}, partial)
            partial.replace(file)
    return VocabularyEmbedding(vocabulary.names, embeddings, float(encoder.logit_scale.exp()))


def _read_embeddings(file: Path) -> Float[Tensor, "K D"] | None:
    try:
        with safe_open(file, framework="pt") as stored:
            embeddings: Tensor = stored.get_tensor("embeddings")
            return embeddings
    except (OSError, SafetensorError):  # absent or damaged: a cache may be both
        return None


def _embed(vocabulary: Vocabulary, encoder: TextEncoder, batch_size: int) -> Float[Tensor, "K D"]:
    names = list(chain.from_iterable(vocabulary.categories))
    for name in names:
        encoder.tokenizer.encode(name)  # refuses a name without words, which the words of a prompt would hide
    texts = [prompt.format(name) for name in names for prompt in PROMPTS]
    embedded = torch.cat([encoder(texts[i : i + batch_size]).cpu() for i in range(0, len(texts), batch_size)])
    per_name = F.normalize(embedded.unflatten(0, (len(names), len(PROMPTS))).mean(1), dim=-1)
    per_category = [group.mean(0) for group in per_name.split([len(names) for names in vocabulary.categories])]
    return F.normalize(torch.stack(per_category), dim=-1)


def _content_key(vocabulary: Vocabulary, encoder: TextEncoder) -> str:
    content = json.dumps([tensor_fingerprint(encoder.state_dict()), encoder.identity, PROMPTS, vocabulary.categories])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
