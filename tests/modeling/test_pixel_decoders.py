"""The three pixel decoders: recorded maps, their options, precision, compilation."""

import parity_cases
import parity_models
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from mask2former.modeling.pixel_decoder.fpn import (
    BasePixelDecoder,
    TransformerEncoderPixelDecoder,
    build_pixel_decoder,
)
from mask2former.modeling.pixel_decoder.msdeformattn import MSDeformAttnPixelDecoder, cell_centres

SHAPES = {
    "res5": ShapeSpec(channels=20, stride=32),
    "res2": ShapeSpec(channels=6, stride=4),
    "res3": ShapeSpec(channels=8, stride=8),
    "res4": ShapeSpec(channels=10, stride=16),
}


def features(batch: int = 2, height: int = 52, width: int = 37) -> dict[str, torch.Tensor]:
    """Random maps of ``SHAPES`` at odd sizes, coarse ones rounded up."""
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for name, shape in SHAPES.items():
        step = shape.stride // 4
        size = -(-height // step), -(-width // step)
        maps[name] = torch.randn(batch, shape.channels, *size, generator=generator)
    return maps


def base() -> BasePixelDecoder:
    return BasePixelDecoder(SHAPES, conv_dim=32, mask_dim=12, norm="GN")


def with_encoder() -> TransformerEncoderPixelDecoder:
    return TransformerEncoderPixelDecoder(
        SHAPES,
        transformer_dropout=0.0,
        transformer_nheads=4,
        transformer_dim_feedforward=64,
        transformer_enc_layers=2,
        transformer_pre_norm=False,
        conv_dim=32,
        mask_dim=12,
        norm="GN",
    )


def deformable(**options) -> MSDeformAttnPixelDecoder:
    defaults = dict(
        transformer_dropout=0.0,
        transformer_nheads=4,
        transformer_dim_feedforward=64,
        transformer_enc_layers=2,
        conv_dim=32,
        mask_dim=12,
        norm="GN",
        transformer_in_features=["res3", "res4", "res5"],
        common_stride=4,
    )
    decoder = MSDeformAttnPixelDecoder(SHAPES, **{**defaults, **options})
    for module in decoder.modules():  # sampling that differs from query to query
        if hasattr(module, "sampling_offsets"):
            torch.nn.init.normal_(module.sampling_offsets.weight, std=0.1)
            torch.nn.init.normal_(module.attention_weights.weight, std=0.1)
    return decoder


@pytest.fixture(params=[base, with_encoder, deformable], ids=lambda make: make.__name__)
def decoder(request):
    torch.manual_seed(0)
    return request.param().eval()


@pytest.mark.parametrize(
    "case",
    ["r50_panoptic", "swin_panoptic", "maskformer_v1_res5", "maskformer_v1_transformer_encoder"],
)
def test_maps_equal_the_recorded_ones(case):
    model = parity_models.model(case)
    with torch.no_grad():
        backbone = model.backbone(parity_models.normalised_images(case, model))
        mask_features, encoded, multi_scale = model.sem_seg_head.pixel_decoder(backbone)
    found = {"mask_features": mask_features, "transformer_encoder_features": encoded}
    found |= {f"multi_scale_features_{i}": level for i, level in enumerate(multi_scale)}
    recorded = parity_cases.arrays(case, "outputs")
    names = [name for name in found if name in recorded]
    assert "mask_features" in names
    for name in names:
        expected = torch.from_numpy(recorded[name])
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=2e-4)


def test_outputs_have_their_documented_shapes(decoder):
    mask_features, encoded, multi_scale = decoder.forward_features(features())
    assert mask_features.shape == (2, 12, 52, 37)
    assert [tuple(level.shape) for level in multi_scale] == [
        (2, 32, 7, 5),
        (2, 32, 13, 10),
        (2, 32, 26, 19),
    ]
    assert encoded is None or encoded.shape == (2, 32, 7, 5)


def test_images_of_a_batch_do_not_see_each_other(decoder):
    together = decoder.forward_features(features())[0]
    for i in range(2):
        alone = decoder.forward_features({k: v[i : i + 1] for k, v in features().items()})[0]
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_receives_a_gradient(decoder):
    decoder.train()
    mask_features, _, multi_scale = decoder.forward_features(features())
    sum(output.square().mean() for output in [mask_features, *multi_scale]).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_bfloat16_autocast_stays_near_float32(decoder):
    with torch.no_grad():
        expected = decoder.forward_features(features())[0]
        with torch.autocast("cpu", torch.bfloat16):
            found = decoder.forward_features(features())[0]
    assert (found.float() - expected).norm() < 0.03 * expected.norm()


def test_autocast_is_not_switched_off_inside(decoder):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert decoder.forward_features(features())[0].dtype == torch.bfloat16


def test_compiles_without_a_graph_break(decoder):
    compiled = torch.compile(decoder.forward_features, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = decoder.forward_features(features())[0]
        torch.testing.assert_close(compiled(features())[0], expected, rtol=1e-4, atol=1e-5)


def test_training_may_follow_inference_mode(decoder):
    with torch.inference_mode():
        decoder.forward_features(features())
    decoder.train().forward_features(features())[0].sum().backward()


def test_deformable_encoder_may_see_fewer_levels():
    decoder = deformable(transformer_in_features=["res5"])
    mask_features, encoded, multi_scale = decoder.forward_features(features())
    assert mask_features.shape == (2, 12, 52, 37) and encoded.shape == (2, 32, 7, 5)
    assert [level.shape[-1] for level in multi_scale] == [5, 10, 19]
    assert hasattr(decoder, "adapter_3") and len(decoder.input_proj) == 1


def test_deformable_encoder_features_must_be_among_the_inputs():
    with pytest.raises(ValueError, match=r"ENCODER_IN_FEATURES is \['res5', 'res6'\]"):
        deformable(transformer_in_features=["res5", "res6"])


def test_width_must_suit_the_group_norms():
    with pytest.raises(ValueError, match="CONVS_DIM is 48"):
        deformable(conv_dim=48)


def test_reference_points_are_the_centres_of_cells_x_before_y():
    points = cell_centres([(1, 2), (2, 1)], torch.device("cpu"))
    expected = [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]
    torch.testing.assert_close(points, torch.tensor(expected))


def test_encoder_ignores_the_keys_the_published_one_ignores():
    cfg = parity_models.config(
        "r50_panoptic",
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD",
        77,
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS",
        2,
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS",
        2,
    )
    layer = build_pixel_decoder(cfg, SHAPES).transformer.encoder.layers[0]
    assert layer.linear1.out_features == 1024
    assert layer.self_attn.n_points == 4
    assert layer.self_attn.n_heads == cfg.MODEL.MASK_FORMER.NHEADS


@pytest.mark.parametrize("norm", ["", "GN"])
def test_convolutions_have_a_bias_only_without_a_norm(norm):
    decoder = BasePixelDecoder(SHAPES, conv_dim=32, mask_dim=12, norm=norm)
    assert (decoder.adapter_1.bias is None) == (decoder.layer_4.bias is None) == (norm == "GN")


@SEM_SEG_HEADS_REGISTRY.register()
class HeadWithoutForwardFeatures(torch.nn.Module):
    def __init__(self, cfg, input_shape):
        super().__init__()


def test_what_is_no_pixel_decoder_is_named():
    cfg = parity_models.config("r50_panoptic")
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = "HeadWithoutForwardFeatures"
    with pytest.raises(ValueError, match="PIXEL_DECODER_NAME is 'HeadWithoutForwardFeatures'"):
        build_pixel_decoder(cfg, SHAPES)
