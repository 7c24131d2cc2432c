"""Vocabularies chosen at run time, and class probabilities from their embeddings (OpenVIS, Eq. 4).

This module does not import `open_clip`, so processes that only use embeddings, such as trackers, start quickly.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openvis_model.exemplars import Exemplar, names_picture, parse_exemplar, parse_exemplars, relative_to
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
    """Categories to look for, each with one or more names, or with one name and exemplars; the first name is displayed.

    White space in names is collapsed to single spaces. CLIP does not read the name of a category with exemplars. Files
    hold names and exemplars, not how synonyms are scored.

    Attributes:
        categories: the names of each category.
        synonyms: how a category with several names or exemplars is scored: by the `mean` of their embeddings, or by the
            `best` one for each instance, as CLIP-VIS does (Zhu et al. 2024).
        exemplars: of each category, none of those that are named; empty if all are named.

    Raises:
        ValueError: if there are no categories, a name is empty or occurs twice, a text is given instead of a sequence
            of names, a category with exemplars has several names, or `synonyms` is unknown.
    """

    categories: tuple[tuple[str, ...], ...]
    synonyms: Synonyms = "mean"
    exemplars: tuple[tuple[Exemplar, ...], ...] = ()

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
        if not any(self.exemplars):
            object.__setattr__(self, "exemplars", ())
        for names, exemplars in zip(categories, self.exemplars, strict=bool(self.exemplars)):
            if exemplars and len(names) > 1:
                raise ValueError(
                    f"{exemplars[0].place}: a category with pictures has one name, {', '.join(names)!r} are "
                    f"{len(names)}; write {names[0]}: {exemplars[0]}"
                )

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The displayed name of each category."""
        return tuple(names[0] for names in self.categories)

    @property
    def shown(self) -> tuple[Exemplar, ...]:
        """The exemplars of all categories."""
        return tuple(chain.from_iterable(self.exemplars))

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that class probabilities depend on, for hashes.

        Raises:
            ValueError: an exemplar was not read.
        """
        identity: tuple[Any, ...] = self.categories if self.synonyms == "mean" else (*self.categories, self.synonyms)
        return (*identity, self._digests()) if self.exemplars else identity

    def _digests(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(exemplar.digest for exemplar in exemplars) for exemplars in self.exemplars)

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
        return cls._handwritten([(tuple(names), ()) for names in categories])

    @classmethod
    def _handwritten(cls, categories: Sequence["_Category"]) -> "Vocabulary":
        vocabulary = cls._of(categories)
        _check_distinct(vocabulary.categories, str.casefold)
        return vocabulary

    @classmethod
    def _of(cls, categories: Sequence["_Category"]) -> "Vocabulary":
        return cls(tuple(names for names, _ in categories), exemplars=tuple(exemplars for _, exemplars in categories))

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "Vocabulary":
        """Reads one category per line; skips blank lines and lines that start with #.

        A line has names separated by commas, or a name, a colon, a space, and exemplars separated by commas:
        `mug: mug_1.jpg, mug_2.jpg`. `exemplars` describes them.

        Raises:
            ValueError: for one text instead of several lines, names that `handwritten` refuses, or exemplars that
                `parse_exemplar` refuses.
        """
        if isinstance(lines, str):
            raise ValueError(f"vocabulary: expected several lines, got the text {lines[:60]!r}; use its splitlines()")
        kept = ((number, line.strip()) for number, line in enumerate(lines, start=1))
        return cls._handwritten(
            [_category(line, f"line {number}") for number, line in kept if line and not line.startswith("#")]
        )

    @classmethod
    def listed(cls, categories: Iterable[str | Sequence[str]]) -> "Vocabulary":
        """Takes categories from a list: each one a line as `from_lines` reads it, or a sequence of names.

        Raises:
            ValueError: as `from_lines`.
        """
        return cls._handwritten(
            [
                _category(category, f"category {index}") if isinstance(category, str) else (tuple(category), ())
                for index, category in enumerate(categories)
            ]
        )

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Reads a JSON list of categories: lists of names, which are taken as they are, and those with exemplars.

        One with exemplars is an object: `{"name": "mug", "exemplars": ["mug_1.jpg", "mug_2.jpg box 10 20 200 180"]}`.

        Raises:
            ValueError: for another document, or names or exemplars that `Vocabulary` or `parse_exemplar` refuses.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"vocabulary: not JSON ({error}); write the file again") from error
        if not isinstance(document, list):
            raise ValueError(f"vocabulary: holds a {type(document).__name__}; give a list of categories")
        return cls._of([_listed_category(category, index) for index, category in enumerate(document)])

    @classmethod
    def read(cls, path: str | Path, original: str | None = None) -> "Vocabulary":
        """Reads a UTF-8 file: `from_json` if its name ends in .json, otherwise `from_lines`. Reads no picture.

        Args:
            path: of the file; pictures and archives are relative to its folder.
            original: of the file that this one is a copy of, if it is one.

        Raises:
            ValueError: for a file that cannot be read or has invalid names; names the file and the problem.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            read = cls.from_json(text) if Path(path).suffix == ".json" else cls.from_lines(text.splitlines())
            return read._located(original or str(path))
        except OSError as error:
            raise ValueError(f"vocabulary: cannot read {path} ({error.strerror}); correct the path") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"vocabulary: {path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _located(self, file: str) -> "Vocabulary":
        """Returns it with full paths and places, as a file has it."""
        anchor = file if "://" in file else os.path.abspath(file)
        return self.with_exemplars(
            lambda each: replace(each, place=f"{file}: {each.place}").mapped(lambda path: relative_to(path, anchor))
        )

    def with_exemplars(self, change: Callable[[Exemplar], Exemplar]) -> "Vocabulary":
        """Returns the vocabulary with other exemplars, one for each."""
        return replace(self, exemplars=tuple(tuple(map(change, exemplars)) for exemplars in self.exemplars))

    def illustrated(self, pictures: "Vocabulary") -> "Vocabulary":
        """Returns the vocabulary with the exemplars of another one, instead of the names that they share.

        Raises:
            ValueError: the other one has a category without exemplars, or a name that this one lacks.
        """
        shown = dict(zip(pictures.names, pictures.exemplars or ((),) * len(pictures), strict=True))
        for name, exemplars in shown.items():
            if not exemplars:
                raise ValueError(f"category {name!r} has no exemplars; remove it, or add pictures after its name")
            if name not in self.names:
                raise ValueError(f"category {name!r} is not among the {len(self)} names; correct or remove it")
        categories = [
            (name,) if name in shown else names for name, names in zip(self.names, self.categories, strict=True)
        ]
        return replace(self, categories=tuple(categories), exemplars=tuple(shown.get(name, ()) for name in self.names))

    def to_json(self) -> str:
        """Writes what `from_json` reads, with a line per category."""
        exemplars = self.exemplars or ((),) * len(self)
        documents = [
            {"name": names[0], "exemplars": [str(each) for each in shown]} if shown else names
            for names, shown in zip(self.categories, exemplars, strict=True)
        ]
        lines = ",\n".join(json.dumps(document, ensure_ascii=False) for document in documents)
        return f"[\n{lines}\n]\n"


_Category = tuple[tuple[str, ...], tuple[Exemplar, ...]]  # its names and its exemplars


def _category(line: str, place: str) -> _Category:
    """Reads a category of a vocabulary file."""
    before, *exemplars = re.split(r":(?:\s+|$)", line, maxsplit=1)
    names = tuple(before.split(","))
    for name in names:
        if names_picture(name):
            raise ValueError(
                f"{place}: {name.strip()!r} stands where a name is meant; write NAME: PICTURE, with the space"
            )
    return names, parse_exemplars(exemplars[0], place) if exemplars else ()


def _listed_category(category: object, index: int) -> _Category:
    """Reads a category of a JSON list."""
    place = f"category {index}"
    if isinstance(category, dict):
        name, exemplars = category.get("name"), category.get("exemplars")
        if set(category) != {"name", "exemplars"} or not isinstance(name, str) or not _are_texts(exemplars):
            raise ValueError(
                f'vocabulary: {place} is {category!r:.60}; give {{"name": "mug", "exemplars": ["mug_1.jpg"]}}'
            )
        return (name,), tuple(parse_exemplar(text, place) for text in exemplars)
    if not isinstance(category, list) or not all(isinstance(name, str) for name in category):
        raise ValueError(f"vocabulary: {place} is {category!r:.60}; give a list of its names")
    return tuple(category), ()


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


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
        embeddings: E, one row per category, or one per name or exemplar if `category` is given: unit norm, but for
            exemplars whose rows `calibration` has made comparable.
        logit_scale: CLIP's learned inverse temperature.
        category: the category that each row of E is a name of; None if the rows are the categories.
        logit_bias: learned bias of a CLIP that was trained with the sigmoid loss (SigLIP, Zhai et al. 2023); None for
            the others, whose names compete in a softmax.
        offset: added to the logits of each row; None for zero.
        reference: what `unknown` compares with: unit-norm embeddings of names of all kinds, and beside exemplars alone,
            rows of objects that are nothing in particular; None for none.
        reference_offset: added to the logits of each row of the reference; None for zero.
    """

    names: tuple[str, ...]
    embeddings: Float[Tensor, "M D"]
    logit_scale: float
    category: Int[Tensor, " M"] | None = None
    logit_bias: float | None = None
    offset: Float[Tensor, " M"] | None = None
    reference: Float[Tensor, "R D"] | None = None
    reference_offset: Float[Tensor, " R"] | None = None

    @property
    def compared(self) -> int:
        """Number of rows that an instance token is compared with."""
        return len(self.embeddings) + (0 if self.reference is None else len(self.reference))

    def probabilities(self, instance_tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        """Returns the class probabilities softmax(logit_scale · I Eᵀ) of unit-norm instance tokens (OpenVIS, Eq. 4).

        With a bias, each category has a probability of its own, sigmoid(logit_scale · I Eᵀ + logit_bias), and they do
        not sum to 1. The logit of a category with several rows is the largest of theirs.
        """
        logits = self._logits(instance_tokens)
        if self.category is not None:
            lowest = logits.new_full((*logits.shape[:-1], len(self.names)), -torch.inf)
            logits = lowest.scatter_reduce(-1, self.category.expand_as(logits), logits, "amax")
        return logits.softmax(-1) if self.logit_bias is None else (logits + self.logit_bias).sigmoid()

    def unknown(self, instance_tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n"]:
        """Returns how likely it is that the best of M unrelated rows fits at least as well as the best category does.

        Logits of unrelated rows are taken to be normal, with the mean and deviation of this token's logits for the
        reference and the vocabulary together: 1 − Φ((best − mean) / deviation)ᴹ. Near 0, the best category stands out;
        near 1, it fits no better than chance, and the object is probably none of the categories. A larger vocabulary
        has better chance hits, which M accounts for.
        """
        logits = self._logits(instance_tokens)
        best = logits.amax(-1)
        if self.reference is not None:
            others = self._scaled(instance_tokens, self.reference, self.reference_offset)
            logits = torch.cat([logits, others], dim=-1)
        mean = logits.mean(-1, keepdim=True)
        deviation = (logits - mean).square().mean(-1).sqrt().clamp_min(1e-6)
        return -torch.expm1(len(self.embeddings) * torch.special.log_ndtr((best - mean[..., 0]) / deviation))

    def _logits(self, instance_tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n M"]:
        return self._scaled(instance_tokens, self.embeddings, self.offset)

    def _scaled(
        self, instance_tokens: Float[Tensor, "*n D"], rows: Float[Tensor, "R D"], offset: Float[Tensor, " R"] | None
    ) -> Float[Tensor, "*n R"]:
        logits = self.logit_scale * instance_tokens @ rows.mT
        return logits if offset is None else logits + offset
