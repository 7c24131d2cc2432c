"""RF-DETR-Seg as a mask proposal network: a DINOv2 with windows and a deformable decoder (Robinson et al. 2025)."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.rf_detr.modeling_rf_detr import RfDetrForInstanceSegmentation

from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork
from openvis_model.proposals import Proposals


class RfDetr(MaskProposalNetwork):
    """Each class has a sigmoid; objectness is the largest. Its own preprocessing stretches a frame to a square.

    It is trained as it infers: with the first of its groups of queries, and without dropout. The other groups stay as
    they were.
    """

    transformers_class = RfDetrForInstanceSegmentation
    queries = ""  # one weight has the queries of all groups
    any_side = True

    @property
    def query_width(self) -> int:
        """C, width of a query."""
        return int(self.network.config.d_model)

    @property
    def side(self) -> int:
        """Side of the square input, pixels; positions are resampled to it."""
        return self.config.image_size or int(self.network.config.backbone_config.image_size)

    @property
    def size_divisor(self) -> int:
        """Pixels of a patch in each window."""
        return _divisor(self.network.config.backbone_config)

    @classmethod
    def check_architecture(cls, config: MaskProposalConfig, name: str) -> None:
        """Checks that the input is a square of whole windows with enough patches.

        Raises:
            ValueError: names what differs.
        """
        built = config.build()
        backbone = built.backbone_config
        if not (isinstance(backbone.image_size, int) and isinstance(backbone.patch_size, int)):
            raise ValueError(
                f"{name}.backbone_config: image_size and patch_size: expected a number of pixels each, got "
                f"{backbone.image_size} and {backbone.patch_size}"
            )
        side, divisor = config.image_size or backbone.image_size, _divisor(backbone)
        if side % divisor:
            raise ValueError(
                f"mask_proposal.image_size: expected a multiple of patch_size · num_windows ({divisor}), got {side}; "
                "a folder's preprocessor_config.json says it as size: height and width"
            )
        if built.num_queries > (patches := (side // backbone.patch_size) ** 2):
            raise ValueError(
                f"{name}.num_queries: expected at most the number of patches ({patches}), got {built.num_queries}"
            )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size of the square."""
        return self.side, self.side

    def propose(self, pixels: Tensor, *, last_alone: bool) -> list[Proposals]:
        """Returns the proposals of the first stage, which are patches, and of each decoder layer."""
        network, size = self.network, pixels.shape[-2:]
        output = network.model.model(pixels)
        maps, states = output.backbone_features, output.intermediate_hidden_states
        masks = network.segmentation_head(maps, states, size)
        class_logits, boxes = network.model.predict_class_and_boxes(states, output.intermediate_reference_points)
        layers = [Proposals(*layer) for layer in zip(masks, states, _largest(class_logits), boxes, strict=True)]
        if last_alone:
            return layers[-1:]
        patches = output.enc_outputs_class
        first = Proposals(
            network.segmentation_head(maps, patches, size, skip_blocks=True),
            patches,
            _largest(network.model.predict_encoder_class_logits(patches)),
            output.enc_outputs_coord_logits,
        )
        return [first, *layers]

    def backbone(self) -> nn.Module:
        """Returns the DINOv2."""
        backbone: nn.Module = self.network.model.model.backbone.backbone
        return backbone

    def untrained(self) -> list[nn.Parameter]:
        """Returns the other groups, and what no feature map is made with."""
        model = self.network.model.model
        backbone = model.backbone.backbone
        last = max(self.network.config.backbone_config.out_indices)
        modules = [
            *model.enc_output[1:],
            *model.enc_output_norm[1:],
            *model.enc_out_class_embed[1:],
            *model.enc_out_bbox_embed[1:],
            *backbone.encoder.layer[last:],
        ]
        mask_token = backbone.embeddings.mask_token
        return [*(parameter for module in modules for parameter in module.parameters())] + (
            [] if mask_token is None else [mask_token]
        )

    def train(self, mode: bool = True) -> "RfDetr":
        """Switches to training or evaluation; the network itself always computes what it does at inference."""
        super().train(mode)
        self.network.eval()
        return self


def _largest(class_logits: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n"]:
    return class_logits.float().amax(-1)


def _divisor(backbone: object) -> int:
    return int(backbone.patch_size * backbone.num_windows)  # type: ignore[attr-defined]
