"""Plain restatements of what the model computes cleverly: tests compare with them, benchmarks race them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from openvis_model.frames import to_pixels
from openvis_model.guidance import instance_guidance
from openvis_model.guided_attention import InstanceGuidanceAttention
from openvis_model.inst_clip import InstClip


def dense_mask(guidance: Tensor, register: int) -> Tensor:
    """Eq. 3's additive mask [B, R+N+P, R+N+P] over [register, instances, patches], from guidance [B, N, P]."""
    B, N, P = guidance.shape
    mask = torch.zeros(B, register + N + P, register + N + P)
    mask[:, :, register : register + N] = float("-inf")  # nobody looks at instances ...
    mask[:, register : register + N, :register] = float("-inf")  # ... which do not look at the register ...
    instances = torch.arange(register, register + N)
    mask[:, instances, instances] = 0  # ... but each at itself
    mask[:, register : register + N, register + N :] = guidance
    return mask


def dense_attention(attention: InstanceGuidanceAttention, tokens: Tensor, mask: Tensor) -> Tensor:
    """Masked multi-head attention over the whole sequence."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (attention.heads, -1)).transpose(1, 2)

    q, k, v = heads(attention.q_proj(tokens)), heads(attention.k_proj(tokens)), heads(attention.v_proj(tokens))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def dense_encode(model: InstClip, frames: Tensor, mask_logits: Tensor, query_index: Tensor) -> tuple[Tensor, Tensor]:
    """`InstClip.encode` as one dense masked pass over 1+N+P tokens in the paper's order, all layers in full."""
    pixels = (to_pixels(frames, model.input_size) - model.mean) / model.std
    patches = model.visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    guidance = instance_guidance(mask_logits, grid, guidance=model.config.guidance, resampling=model.config.resampling)
    positions = model.visual.positional_embedding[1:].unflatten(0, model.visual.grid_size).permute(2, 0, 1)[None]
    if grid != tuple(model.visual.grid_size):
        positions = F.interpolate(positions, size=grid, mode="bicubic", antialias=True)
    register = 0 if model.register_token is None else 1
    tokens = [model.register_token.expand(len(frames), 1, -1)] if register else []
    tokens += [model.instance_tokens[query_index], (patches + positions).flatten(2).mT]
    x = model.visual.ln_pre(torch.cat(tokens, dim=1))
    mask = dense_mask(guidance, register)
    for block in model.visual.transformer.resblocks:
        x = x + dense_attention(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    x = model.visual.ln_post(x) @ model.visual.proj
    return x[:, register : register + query_index.shape[1]], x[:, :register]
