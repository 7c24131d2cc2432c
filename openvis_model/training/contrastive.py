"""How a miniature CLIP comes to know a vocabulary: images and captions, contrasted (after Radford et al. 2021).

Two things differ from CLIP, both because images are few:

- The text tower is fitted to how many words texts share, then locked (as Zhai et al. 2022 lock the image tower). If
  both are trained from scratch, texts whose difference the image tower cannot see yet collapse into one.
- An image is contrasted with all captions there are, not with those of its batch: small batches then do, and what is
  learnt does not depend on how many workers share one.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from open_clip import CLIP
from torch import Tensor, nn

from openvis_model.clip import TextEncoder, build_clip, build_tokenizer
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import pixel_statistics
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.training.captioned_image import CaptionedImage
from openvis_model.vocabulary import PROMPTS, Vocabulary, split_words
from openvis_model.weights.checkpoint import save_checkpoint

FITTING_STEPS = 400
FITTING_BATCH = 100
FITTING_RATE = 1e-3


class ContrastiveObjective(nn.Module):
    """Image-text pre-training of a CLIP with a vocabulary of its own.

    A second loss of the same kind on the largest values of the stem's features speeds the stem up; its projection is
    training's alone.

    Args:
        config: of the model that the CLIP is for.
        clip: CLIP with a text tower that is fitted already.
        names: K captions that images may have, none twice.
        frame_size: (height, width) of whole frames, pixels.
    """

    def __init__(self, config: InstFormerConfig, clip: CLIP, names: Sequence[str], frame_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.clip = clip
        self.row = {name: row for row, name in enumerate(names)}
        self.patch_size: int = clip.visual.patch_size[0]
        self.grid = (frame_size[0] // self.patch_size, frame_size[1] // self.patch_size)
        self.stem_projection = nn.Linear(clip.visual.conv1.layers[-1].out_channels, clip.visual.output_dim)
        mean, std = pixel_statistics(clip.visual)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        clip.requires_grad_(False)
        clip.visual.requires_grad_(True)
        clip.logit_scale.requires_grad_(True)
        encoder = TextEncoder(clip, build_tokenizer(config.clip, clip.context_length))
        embeddings = embed_vocabulary(Vocabulary.from_lines(names), encoder).embeddings
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.embeddings: Tensor

    def counts(self, images: Sequence[CaptionedImage]) -> Float[Tensor, "1"]:
        """Captions."""
        return torch.tensor([float(sum(len(set(image.captions)) for image in images))])

    def forward(self, images: Sequence[CaptionedImage], normalisers: Float[Tensor, "1"]) -> dict[str, Tensor]:
        """Losses "image" and "stem", as a sum over captions.

        Args:
            images: all of one size.
            normalisers: `counts` of all images that the gradient is averaged over.
        """
        captions = torch.zeros(len(images), len(self.row), dtype=torch.bool)
        for present, image in zip(captions, images, strict=True):
            present[[self.row[caption] for caption in image.captions]] = True
        captions = captions.to(self.mean.device)
        embeddings = self._embed(images)
        scale = self.clip.logit_scale.exp().clamp(max=100)
        return {
            name: caption_loss(scale * F.normalize(its.float(), dim=-1) @ self.embeddings.T, captions)
            / normalisers.clamp(min=1e-6)[0]
            for name, its in zip(("image", "stem"), embeddings, strict=True)
        }

    @torch.no_grad()
    def top1(self, images: Sequence[CaptionedImage]) -> float:
        """How often the nearest caption is one of the image's, a fraction."""
        training = self.training
        self.eval()
        nearest = (self._embed(images)[0].float() @ self.embeddings.T).argmax(1).tolist()
        self.train(training)
        return sum(row in map(self.row.get, it.captions) for row, it in zip(nearest, images, strict=True)) / len(images)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters: the vision tower's, the logit scale, and the projection of the stem's features."""
        return {"clip": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def save(self, folder: Path) -> None:
        """Writes a checkpoint folder; all of it but CLIP has random weights."""
        clip = build_clip(self.config.clip)
        clip.load_state_dict(self.clip.state_dict())
        save_checkpoint(InstFormer(self.config, clip=clip), folder)

    def _embed(self, images: Sequence[CaptionedImage]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Embeddings of images by CLIP, and by the projection of the stem's features."""
        visual, P = self.clip.visual, self.patch_size
        frames = torch.stack([torch.from_numpy(image.pixels) for image in images]).to(self.mean.device)
        patches = visual.conv1((frames.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
        positions = visual.positional_embedding[1:].unflatten(0, visual.grid_size).permute(2, 0, 1)[None]
        if positions.shape[-2:] != self.grid:
            positions = F.interpolate(positions, size=self.grid, mode="bicubic", antialias=True)
        rows, columns = patches.shape[-2:]
        windows = [
            positions[0, :, image.top // P : image.top // P + rows, image.left // P : image.left // P + columns]
            for image in images
        ]
        tokens = (patches + torch.stack(windows)).flatten(2).mT
        class_token = visual.class_embedding + visual.positional_embedding[0]
        tokens = torch.cat([class_token.expand(len(images), 1, -1), tokens], dim=1)
        tokens = visual.transformer(visual.ln_pre(tokens))
        return visual.ln_post(tokens[:, 0]) @ visual.proj, self.stem_projection(patches.amax((2, 3)))


def caption_loss(logits: Float[Tensor, "B K"], captions: Bool[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Cross-entropy of each caption of each image against all captions that the image does not have, summed."""
    others = logits.masked_fill(captions, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (torch.logaddexp(logits, others) - logits).masked_select(captions).sum()


def fit_text_tower(encoder: TextEncoder, names: Sequence[str], *, seed: int) -> float:
    """Trains a text tower until the cosine of two texts is how many words of theirs they share.

    The cosine of bags of words, cos(a, b) = |a ∩ b| / √(|a| |b|); the words of the prompts around names do not count.

    Args:
        encoder: with random weights.
        names: to be told apart, and each of their words on its own.
        seed: of the names and prompts that are drawn.

    Returns:
        The mean squared difference of the last step.
    """
    texts = list(dict.fromkeys([*names, *(word for name in names for word in split_words(name))]))
    words = [set(split_words(text)) for text in texts]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=FITTING_RATE)
    difference = torch.zeros(())
    for step in range(FITTING_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = FITTING_RATE * 0.5 * (1 + math.cos(math.pi * step / FITTING_STEPS))
        drawn = torch.randperm(len(texts), generator=generator)[:FITTING_BATCH].tolist()
        prompts = torch.randint(len(PROMPTS), (len(drawn),), generator=generator).tolist()
        wanted = torch.tensor(
            [[len(words[a] & words[b]) / math.sqrt(len(words[a]) * len(words[b])) for b in drawn] for a in drawn]
        )
        embeddings = encoder([PROMPTS[prompt].format(texts[text]) for prompt, text in zip(prompts, drawn, strict=True)])
        difference = (embeddings @ embeddings.T - wanted.to(embeddings.device)).square().mean()
        optimizer.zero_grad()
        difference.backward()
        optimizer.step()
    return difference.item()
