"""Vocabularies chosen at run time, and class probabilities from their embeddings (OpenVIS, Eq. 4).

This module does not import `open_clip`, so processes that only use embeddings, such as trackers, start quickly.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openvis_model.options import Synonyms

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
    """Categories to look for, each with one or more names; the first name is displayed.

    White space in names is collapsed to single spaces. Files hold the names alone.

    Attributes:
        categories: the names of each category.
        synonyms: how a category with several names is scored: by the `mean` of their embeddings, or by the `best` name
            for each instance, as CLIP-VIS does (Zhu et al. 2024).

    Raises:
        ValueError: if there are no categories, a name is empty or occurs twice, a text is given instead of a sequence
            of names, or `synonyms` is unknown.
    """

    categories: tuple[tuple[str, ...], ...]
    synonyms: Synonyms = "mean"

    def __post_init__(self) -> None:
        if self.synonyms not in get_args(Synonyms):
            raise ValueError(f"synonyms: unknown value {self.synonyms!r}; choose from {get_args(Synonyms)}")
        sequences: tuple[object, ...] = (self.categories, *self.categories)
        for sequence in sequences:
            if isinstance(sequence, str):
                raise ValueError(f"vocabulary: {sequence!r} stands where a sequence is meant; write ({sequence!r},)")
        if not self.categories:
            raise ValueError("vocabulary: no categories; give at least one name")
        categories = tuple(tuple(" ".join(name.split()) for name in names) for names in self.categories)
        for index, names in enumerate(categories):
            if not names or not all(names):
                raise ValueError(f"vocabulary: category {index} has an empty name ({list(names)}); remove it")
        _check_distinct(categories, str)
        object.__setattr__(self, "categories", categories)

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The displayed name of each category."""
        return tuple(names[0] for names in self.categories)

    @property
    def identity(self) -> tuple[tuple[str, ...] | str, ...]:
        """All that class probabilities depend on, for hashes."""
        return self.categories if self.synonyms == "mean" else (*self.categories, self.synonyms)

    @classmethod
    def of_dataset(cls, names: Iterable[str]) -> "Vocabulary":
        """Takes the names of a data set as they are, one per category; commas and # have no meaning in them.

        Names that differ only in case are different categories, which CLIP cannot tell apart.
        """
        return cls(tuple((name,) for name in names))

    @classmethod
    def handwritten(cls, categories: Iterable[Sequence[str]]) -> "Vocabulary":
        """Takes the names of each category from a list that someone wrote.

        Raises:
            ValueError: as `Vocabulary`, or two names differ only in case, which is a slip here.
        """
        vocabulary = cls(tuple(tuple(names) for names in categories))
        _check_distinct(vocabulary.categories, str.casefold)
        return vocabulary

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "Vocabulary":
        """Reads one category per line, synonyms separated by commas; skips blank lines and lines that start with #.

        Raises:
            ValueError: for one text instead of several lines, or names that `handwritten` refuses.
        """
        if isinstance(lines, str):
            raise ValueError(f"vocabulary: expected several lines, got the text {lines[:60]!r}; use its splitlines()")
        kept = (line.strip() for line in lines)
        return cls.handwritten(line.split(",") for line in kept if line and not line.startswith("#"))

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Reads a JSON list of categories, each a list of its names, which are taken as they are.

        Raises:
            ValueError: for another document, or names that `Vocabulary` refuses.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"vocabulary: not JSON ({error}); write the file again") from error
        if not isinstance(document, list):
            raise ValueError(f"vocabulary: holds a {type(document).__name__}; give a list of categories")
        for index, names in enumerate(document):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"vocabulary: category {index} is {names!r:.60}; give a list of its names")
        return cls(tuple(tuple(names) for names in document))

    @classmethod
    def read(cls, path: str | Path) -> "Vocabulary":
        """Reads a UTF-8 file: `from_json` if its name ends in .json, otherwise `from_lines`.

        Raises:
            ValueError: for a file that cannot be read or has invalid names; names the file and the problem.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            return cls.from_json(text) if Path(path).suffix == ".json" else cls.from_lines(text.splitlines())
        except OSError as error:
            raise ValueError(f"vocabulary: cannot read {path} ({error.strerror}); correct the path") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"vocabulary: {path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_json(self) -> str:
        """Writes what `from_json` reads, with a line per category."""
        lines = ",\n".join(json.dumps(names, ensure_ascii=False) for names in self.categories)
        return f"[\n{lines}\n]\n"


def _check_distinct(categories: Sequence[Sequence[str]], key: Callable[[str], str]) -> None:
    owner: dict[str, int] = {}
    for index, names in enumerate(categories):
        for name in names:
            if (first := owner.get(key(name))) is not None:
                raise ValueError(
                    f"vocabulary: {name!r} stands twice (categories {first} and {index}); remove one of them"
                )
            owner[key(name)] = index


def split_words(text: str) -> list[str]:
    """Splits a text into words, in lower case and without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def prompt_words(names: Iterable[str]) -> tuple[str, ...]:
    """Returns every word in the prompts of these names, sorted, for a CLIP with its own tokenizer."""
    return tuple(sorted({word for text in (*PROMPTS, *names) for word in split_words(text)}))


@dataclass(frozen=True)
class VocabularyEmbedding:
    """A vocabulary in CLIP's embedding space.

    Attributes:
        names: the displayed name of each of the K categories.
        embeddings: E, unit-norm rows: one per category, or one per name if `category` is given.
        logit_scale: CLIP's learned inverse temperature.
        category: the category that each row of E is a name of; None if the rows are the categories.
        logit_bias: learned bias of a CLIP that was trained with the sigmoid loss (SigLIP, Zhai et al. 2023); None for
            the others, whose names compete in a softmax.
    """

    names: tuple[str, ...]
    embeddings: Float[Tensor, "M D"]
    logit_scale: float
    category: Int[Tensor, " M"] | None = None
    logit_bias: float | None = None

    def probabilities(self, instance_tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        """Returns the class probabilities softmax(logit_scale · I Eᵀ) of unit-norm instance tokens (OpenVIS, Eq. 4).

        With a bias, each category has a probability of its own, sigmoid(logit_scale · I Eᵀ + logit_bias), and they do
        not sum to 1. The logit of a category with several rows is the largest of theirs.
        """
        logits = self.logit_scale * instance_tokens @ self.embeddings.mT
        if self.category is not None:
            lowest = logits.new_full((*logits.shape[:-1], len(self.names)), -torch.inf)
            logits = lowest.scatter_reduce(-1, self.category.expand_as(logits), logits, "amax")
        return logits.softmax(-1) if self.logit_bias is None else (logits + self.logit_bias).sigmoid()
