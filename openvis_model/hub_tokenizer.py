"""Tokenizers of the Hugging Face hub, which text towers such as SigLIP's were trained with."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from openvis_model.tokenizer import read_files, write_files

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""What the hub holds of a tokenizer."""


class HubTokenizer:
    """A tokenizer of the hub, as open_clip uses it; code that it may come with is not run.

    Args:
        source: name on the hub, which is fetched into its cache unless it is there, or a folder.
        text_cfg: open_clip's description of the text tower.
        context_length: ids per text.

    Raises:
        ValueError: if a file is missing; names it, and says how to bring it.
    """

    def __init__(self, source: str, text_cfg: Mapping[str, Any], context_length: int) -> None:
        try:
            self.hub = HFTokenizer(
                source,
                context_length=context_length,
                tokenizer_mode=text_cfg.get("tokenizer_mode"),
                **(text_cfg.get("tokenizer_kwargs") or {}) | {"trust_remote_code": False},
            )
        except Exception as error:  # each library on the way has errors of its own
            raise ValueError(
                f"clip: the tokenizer of its text tower, {source}/{FILES[0]}, is neither in the Hugging Face cache nor "
                f"can it be fetched ({str(error).splitlines()[0]}); run `hf download {source} {' '.join(FILES)}` where "
                "there is a network and copy the cache (HF_HOME) here, or give a folder with these files as "
                "clip.architecture.text_cfg.hf_tokenizer_name"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            self.hub.save_pretrained(folder)
            self.files = read_files(Path(folder))

    @classmethod
    def of_files(cls, files: Mapping[str, Tensor], text_cfg: Mapping[str, Any], context_length: int) -> "HubTokenizer":
        """Builds a tokenizer from its files, by their names; needs neither hub nor cache."""
        with tempfile.TemporaryDirectory() as folder:
            write_files(files, Path(folder))
            tokenizer = cls(folder, text_cfg, context_length)
        tokenizer.files = dict(files)
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without start and end of text.

        Raises:
            ValueError: for a text that the tokenizer knows no part of.
        """
        tokenizer = self.hub.tokenizer
        ids: list[int] = tokenizer(self.hub.clean_fn(text), add_special_tokens=False).input_ids
        tokens = tokenizer.convert_ids_to_tokens(ids)
        if not any(token.strip("▁ ") and token != tokenizer.unk_token for token in tokens):
            raise ValueError(f"vocabulary: {text!r} has no part that the model's CLIP can read; use other words")
        return ids

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Returns the token ids of texts, padded to the context length."""
        ids: Tensor = self.hub(list(texts))
        return ids
