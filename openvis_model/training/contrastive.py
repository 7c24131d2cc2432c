"""Contrastive pre-training of a miniature CLIP on images and captions (after Radford et al. 2021).

It differs from CLIP in two ways, both because there are few images:

- The text tower is fitted so that the similarity of texts is their share of common words, then locked (as Zhai et al.
  2022 lock the image tower). If both towers are trained from scratch, texts that the image tower cannot yet tell apart
  collapse into one embedding.
- An image is contrasted with all captions of the data set instead of those in its batch. Small batches then suffice,
  and the result does not depend on how many workers share a batch.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openvis_model.clip import Clip, build_clip, build_text_encoder
from openvis_model.config import InstFormerConfig
from openvis_model.inst_clip import pixel_statistics
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.text_encoder import TextEncoder
from openvis_model.training.captioned_image import CaptionedImage
from openvis_model.vocabulary import PROMPTS, Vocabulary, split_words
from openvis_model.weights.checkpoint import save_checkpoint

FITTING_STEPS = 400
FITTING_BATCH = 100
FITTING_RATE = 1e-3


class ContrastiveObjective(nn.Module):
    """Image-text pre-training of a CLIP with its own tokenizer.

    A second contrastive loss, on the max-pooled features of the stem, makes the stem learn faster. Its projection is
    used in training only.

    Args:
        config: config of the model that will contain the CLIP.
        clip: CLIP with a fitted text tower.
        names: K different captions that images may have.
        frame_size: (height, width) of whole frames, pixels.
    """

    def __init__(self, config: InstFormerConfig, clip: Clip, names: Sequence[str], frame_size: tuple[int, int]) -> None:
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
        encoder = build_text_encoder(config.clip, clip)
        embeddings = embed_vocabulary(Vocabulary.of_dataset(names), encoder).embeddings
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.embeddings: Tensor

    def counts(self, images: Sequence[CaptionedImage]) -> Float[Tensor, "1"]:
        """Counts the captions of these images."""
        return torch.tensor([float(sum(len(set(image.captions)) for image in images))])

    def forward(self, images: Sequence[CaptionedImage], normalisers: Float[Tensor, "1"]) -> dict[str, Tensor]:
        """Computes the losses "image" and "stem": sums over the captions of these images, divided by `normalisers`.

        Args:
            images: B images of one size.
            normalisers: `counts` of all images that the gradient is averaged over.
        """
        captions = torch.zeros(len(images), len(self.row), dtype=torch.bool)
        for present, image in zip(captions, images, strict=True):
            present[[self.row[caption] for caption in image.captions]] = True
        captions = captions.to(self.mean.device)
        embeddings = dict(zip(("image", "stem"), self._embed(images), strict=True))
        scale = self.clip.logit_scale.exp().clamp(max=100)
        return {
            name: caption_loss(scale * F.normalize(embedding.float(), dim=-1) @ self.embeddings.T, captions)
            / normalisers.clamp(min=1e-6)[0]
            for name, embedding in embeddings.items()
        }

    @torch.no_grad()
    def top1(self, images: Sequence[CaptionedImage]) -> float:
        """Returns the fraction of images whose nearest caption is one of their own."""
        training = self.training
        self.eval()
        nearest = (self._embed(images)[0].float() @ self.embeddings.T).argmax(1).tolist()
        self.train(training)
        hits = (row in map(self.row.get, image.captions) for row, image in zip(nearest, images, strict=True))
        return sum(hits) / len(images)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters: the vision tower, the logit scale, the projection of stem features."""
        return {"clip": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def advance(self, progress: float) -> None:
        """Changes nothing: CLIP is trained the same way from start to end."""

    def save(self, folder: Path) -> None:
        """Writes a checkpoint folder; everything in it except CLIP has random weights."""
        clip = build_clip(self.config.clip)
        clip.load_state_dict(self.clip.state_dict())
        save_checkpoint(InstFormer(self.config, clip=clip), folder)

    def _embed(self, images: Sequence[CaptionedImage]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Embeds images with CLIP, and with the projection of the stem's features."""
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
    """Sums the cross-entropies of each caption of each image against all captions that the image does not have."""
    others = logits.masked_fill(captions, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (torch.logaddexp(logits, others) - logits).masked_select(captions).sum()


def fit_text_tower(encoder: TextEncoder, names: Sequence[str], *, seed: int) -> float:
    """Trains a text tower until the cosine of two embeddings is that of the texts' bags of words.

    The target is cos(a, b) = |a ∩ b| / √(|a| |b|) over the words of two names; the words of prompts do not count.

    Args:
        encoder: a text tower with random weights; trained in place.
        names: names to fit; each of their words is fitted on its own too.
        seed: seed for drawing names and prompts.

    Returns:
        The mean squared difference between cosines and targets in the last step.
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
