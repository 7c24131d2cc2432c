"""The tokenizers of CLIP's text tower: their interface, the one with an id per word, and the files of the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openvis_model.vocabulary import split_words


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
        rows = ([self.start, *self.encode(text), self.end] for text in texts)
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows])


def read_files(folder: Path) -> dict[str, Tensor]:
    """Returns the contents of the files that a tokenizer is made of, as bytes by their names."""
    contents = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix in (".json", ".model")}
    return {name: torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for name, content in contents.items()}


def write_files(files: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the files of a tokenizer into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content.numpy().tobytes())
