"""CLIP's text tower in plain torch, under open_clip's names.

`import open_clip` takes seconds; code that only embeds texts does not need it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openvis_model.tokenizer import Tokenizer
from openvis_model.towers import TextTowerConfig

_PREFIX = "text."
"""Prefix of a text tower's names in those models of open_clip whose vision tower comes from timm."""


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
        self.ln_1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=config.norm_eps)
        gelu = QuickGELU() if config.quick_gelu else nn.GELU(approximate=config.gelu)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": gelu}
        self.mlp = nn.Sequential(OrderedDict(layers | {"c_proj": nn.Linear(hidden, width)}))

    def forward(
        self, x: Float[Tensor, "n Q W"], seen: Sequence[Float[Tensor, "_ _ W"]], mask: Bool[Tensor, "#n Q S"]
    ) -> Float[Tensor, "n Q W"]:
        """Lets tokens attend, then transforms each of them.

        Args:
            x: the tokens.
            seen: what they attend to, S tokens in groups; a group is that of each text, or one that all texts share.
            mask: which token attends to which.
        """
        (W, heads), attention = (x.shape[-1], self.attn.num_heads), self.attn
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query = F.linear(self.ln_1(x), weight[:W], bias[:W])
        groups = [F.linear(self.ln_1(tokens), weight[W:], bias[W:]).expand(len(x), -1, -1) for tokens in seen]
        key, value = torch.cat(groups, dim=1).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
        x = x + attention.out_proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class TextTransformer(nn.Module):
    """The blocks of a text tower."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))

    def forward(
        self, shared: Float[Tensor, "1 B W"], own: Float[Tensor, "n L W"], end: Int[Tensor, "n"]
    ) -> Float[Tensor, "n W"]:
        """Applies the blocks one after the other; attention is causal.

        Args:
            shared: the tokens that all texts begin with; they see no others, so they are the same for all.
            own: the other tokens.
            end: position in `own` of the token whose output is wanted; the last block computes no other.
        """
        (n, L, _), B = own.shape, shared.shape[1]
        position = torch.arange(B + L, device=own.device)
        causal = (position <= position[:, None])[None]
        for block in self.resblocks[:-1]:
            shared, own = block(shared, [shared], causal[:, :B, :B]), block(own, [shared, own], causal[:, B:])
        wanted = own[torch.arange(n, device=own.device), end]
        visible = position <= B + end[:, None]
        return self.resblocks[-1](wanted[:, None], [shared, own], visible[:, None])[:, 0]  # type: ignore[no-any-return]

    def last(self, x: Float[Tensor, "n L W"]) -> Float[Tensor, "n W"]:
        """Applies the blocks with attention between all tokens; returns the last token, which has seen the others."""
        L = x.shape[1]
        everything = torch.ones(1, L, L, dtype=torch.bool, device=x.device)
        for block in self.resblocks[:-1]:
            x = block(x, [x], everything)
        return self.resblocks[-1](x[:, -1:], [x], everything[:, -1:])[:, 0]  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """The text tower of a CLIP or SigLIP: texts in, unit-norm embeddings out.

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
        self.config = config
        text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
        self.prefix = _PREFIX if any(name.startswith(_PREFIX) for name in text) else ""
        text = {name.removeprefix(_PREFIX): tensor for name, tensor in text.items()}
        with torch.device("meta"):
            # Not Embedding(…): its random start, on "meta", imports torch._dynamo, which takes as long as torch itself.
            table = torch.empty(config.vocab_size, config.width)
            self.token_embedding = nn.Embedding.from_pretrained(table, freeze=False)
            self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
            self.transformer = TextTransformer(config)
            self.ln_final = nn.LayerNorm(config.width, eps=config.norm_eps)
            if config.proj_bias:
                self.text_projection: nn.Linear | nn.Parameter = nn.Linear(config.width, config.embed_dim)
            else:
                self.text_projection = nn.Parameter(torch.empty(config.width, config.embed_dim))
            self.logit_scale = nn.Parameter(torch.empty(()))
            self.logit_bias = nn.Parameter(torch.empty(())) if "logit_bias" in text else None
        trainable = {name: tensor.requires_grad for name, tensor in text.items()}
        try:
            self.load_state_dict(text, assign=True)
        except RuntimeError as error:
            raise ValueError(f"clip: its text tower is not CLIP's ({error}); use a model such as ViT-B-32") from error
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(trainable[name])  # loading makes all of them trainable, shared ones too

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        """Embeds texts.

        In CLIP attention is causal and the embedding is read at the end of text. Positions beyond the longest text are
        therefore left out, and what all texts begin with is computed once: the same numbers, several times faster for
        names in one prompt.

        Raises:
            ValueError: for a text that is longer than the context, or has words that the tokenizer does not know.
        """
        for text in texts:
            length = len(self.tokenizer.encode(text)) + self.config.special_tokens
            if length > self.config.context_length:
                raise ValueError(
                    f"vocabulary: {text[:60]!r}… takes {length} tokens, CLIP reads {self.config.context_length}; "
                    "shorten the name"
                )
        ids = self.tokenizer(texts).to(self.positional_embedding.device)
        if self.config.causal:
            read = self._end_of_text(ids)
        else:
            read = self.transformer.last(self.token_embedding(ids) + self.positional_embedding)
        x = self.ln_final(read)
        projection = self.text_projection
        return F.normalize(projection(x) if isinstance(projection, nn.Linear) else x @ projection, dim=-1)

    def clip_state(self) -> dict[str, Tensor]:
        """Returns the weights under the names that they have in their CLIP."""
        return {
            name if name.startswith("logit_") else self.prefix + name: tensor
            for name, tensor in self.state_dict().items()
        }

    def _end_of_text(self, ids: Int[Tensor, "n L"]) -> Float[Tensor, "n W"]:
        """Reads texts with causal attention; returns the token at the end of each."""
        end = ids.argmax(dim=-1)
        length = int(end.max()) + 1
        alike = (ids == ids[0]).all(dim=0).cumprod(dim=0).sum()
        begin = int(torch.minimum(alike, end.min()))  # the last tokens are not shared, even if all texts are the same
        x = self.token_embedding(ids[:, :length]) + self.positional_embedding[:length]
        return self.transformer(x[:1, :begin], x[:, begin:], end - begin)  # type: ignore[no-any-return]
