"""CLIP's text tower in plain torch, under open_clip's names.

`import open_clip` takes seconds; code that only embeds texts does not need it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.tokenizer import Tokenizer
from openvis_model.towers import TextTowerConfig


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP."""

    def forward(self, x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
        """Approximates GELU."""
        return x * torch.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    """A transformer block with normalised inputs."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": QuickGELU() if config.quick_gelu else nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(layers | {"c_proj": nn.Linear(hidden, width)}))

    def forward(self, x: Float[Tensor, "n L W"], mask: Float[Tensor, "L L"]) -> Float[Tensor, "n L W"]:
        """Attends, then transforms each token."""
        normalised = self.ln_1(x)
        x = x + self.attn(normalised, normalised, normalised, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class TextTransformer(nn.Module):
    """The blocks of a text tower."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))

    def forward(self, x: Float[Tensor, "n L W"], mask: Float[Tensor, "L L"]) -> Float[Tensor, "n L W"]:
        """Applies the blocks one after the other."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class TextEncoder(nn.Module):
    """CLIP's text tower: texts in, unit-norm embeddings out.

    Args:
        config: the size of the tower.
        tokenizer: the tokenizer that the tower was trained with.
        state: CLIP's weights; those of the text tower become this module's own, without a copy, and train as before.

    Raises:
        ValueError: for weights that do not fit the tower.
    """

    def __init__(self, config: TextTowerConfig, tokenizer: Tokenizer, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.context_length = config.context_length
        with torch.device("meta"):
            # Not Embedding(…): its random start, on "meta", imports torch._dynamo, which takes as long as torch itself.
            table = torch.empty(config.vocab_size, config.width)
            self.token_embedding = nn.Embedding.from_pretrained(table, freeze=False)
            self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
            self.transformer = TextTransformer(config)
            self.ln_final = nn.LayerNorm(config.width)
            self.text_projection = nn.Parameter(torch.empty(config.width, config.embed_dim))
            self.logit_scale = nn.Parameter(torch.empty(()))
        text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
        trainable = {name: tensor.requires_grad for name, tensor in text.items()}
        try:
            self.load_state_dict(text, assign=True)
        except RuntimeError as error:
            raise ValueError(f"clip: its text tower is not CLIP's ({error}); use a model such as ViT-B-32") from error
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(trainable[name])  # loading makes all of them trainable, shared ones too

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
        x = self.transformer(x, torch.full((length, length), -torch.inf, device=x.device, dtype=x.dtype).triu(1))
        x = self.ln_final(x[torch.arange(len(x), device=x.device), end])
        return F.normalize(x @ self.text_projection, dim=-1)
