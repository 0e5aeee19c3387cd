"""Every config key this project adds on top of detectron2's, with its meaning and origin.

Defaults are the published ones, so a published YAML means the same here. Sources:
[M2F] facebookresearch/Mask2Former, [IBS] DdeGeus/Mask2Former-IBS, [SeMask] Picsart-AI-Research,
[DiNAT] SHI-Labs DiNAT. Keys marked [ours] are new; their default is the published behaviour.

Call order, as in the published scripts::

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
"""

from detectron2.config import CfgNode as CN


def add_maskformer2_config(cfg: CN) -> None:
    """Adds all keys of this project to ``cfg``, in place.

    Args:
        cfg: an unfrozen node from ``detectron2.config.get_cfg()``.
    """
    _add_input_keys(cfg)
    _add_solver_keys(cfg)
    _add_mask_former_keys(cfg)
    _add_pixel_decoder_keys(cfg)
    _add_swin_keys(cfg)
    _add_dinat_keys(cfg)
    _add_timm_keys(cfg)
    _add_vit_adapter_keys(cfg)
    _add_robustness_keys(cfg)
    _add_evaluation_keys(cfg)
    _add_prediction_dump_keys(cfg)
    _add_speed_keys(cfg)


def _add_input_keys(cfg: CN) -> None:
    # Which training mapper train_net.py builds; see mask2former/data/dataset_mappers. [M2F]
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # Append the SSD colour jitter to the augmentations. [M2F]
    cfg.INPUT.COLOR_AUG_SSD = False
    # Largest share of a random crop one label may occupy; 1.0 disables retrying. [DeepLab]
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # > 0: the mapper pads image and ground truth to exactly this square size. [M2F]
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # Large-scale jitter: target square side and scale range. [M2F, after "Simple Copy-Paste"]
    cfg.INPUT.IMAGE_SIZE = 1024
    cfg.INPUT.MIN_SCALE = 0.1
    cfg.INPUT.MAX_SCALE = 2.0
    # Crop sampling. [IBS]
    cfg.INPUT.CROP.WITH_INSTANCE = False
    cfg.INPUT.NEW_SAMPLING = False
    cfg.INPUT.SCALE_OPTIONS = [32, 64, 128, 256, 512]
    cfg.INPUT.NEW_SAMPLING_SHORTEST_SIDE_MIN = 1024
    cfg.INPUT.NEW_SAMPLING_SHORTEST_SIDE_MAX = 6192
    cfg.INPUT.NEW_SAMPLING_OVERALL_MAX_SIZE = 9288
    # Whether crop sampling may choose a crowd region as the object to bring to a size. True is what
    # the published code does, though a crowd is no object. [ours]
    cfg.INPUT.NEW_SAMPLING_CROWD = False
    # Drop segments of which the crop left at most one pixel. None: as the code that published the
    # config, that is with MODEL.MASK_FORMER.APPLY_IBS and with crop sampling only. [ours]
    cfg.INPUT.DROP_VANISHED_SEGMENTS = None
    # Label passed to the criterion; stored, not used. [IBS]
    cfg.DATASETS.NAME = "Cityscapes"
    # Data sets declared in YAML, name -> FORMAT, IMAGES, ANNOTATIONS, ...; see
    # mask2former/data/datasets/custom. [ours]
    cfg.DATASETS.CUSTOM = CN(new_allowed=True)
    # One positive number a set of DATASETS.TRAIN: the share of samples drawn from it. Empty: every
    # image is drawn equally often, as published. [ours]
    cfg.DATASETS.TRAIN_WEIGHTS = []


def _add_solver_keys(cfg: CN) -> None:
    # Weight decay of parameters owned by nn.Embedding. [M2F]
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # ADAMW or SGD. [M2F]
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Learning-rate factor of parameters whose module path contains "backbone". [M2F]
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Autocast type when SOLVER.AMP.ENABLED: "auto" is float16 with loss scaling on CUDA (published
    # behaviour) and bfloat16 on CPU; "float16" and "bfloat16" ask for one of them. [ours]
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Below 1: the rate of every transformer block is this times that of the block after it, and
    # parameters with one dimension do not decay; see mask2former/engine/layer_decay.py. 1: off, as
    # published for Mask2Former; ViT-Adapter has 0.9. [ours, after BEiT]
    cfg.SOLVER.LAYER_DECAY = 1.0


def _add_mask_former_keys(cfg: CN) -> None:
    cfg.MODEL.MASK_FORMER = CN()
    mask_former = cfg.MODEL.MASK_FORMER
    # Losses: the same weights serve the matching cost. [M2F, section 3.3]
    mask_former.DEEP_SUPERVISION = True
    mask_former.NO_OBJECT_WEIGHT = 0.1
    mask_former.CLASS_WEIGHT = 1.0
    mask_former.DICE_WEIGHT = 1.0
    mask_former.MASK_WEIGHT = 20.0
    # Point-sampled losses. [M2F, after PointRend]
    mask_former.TRAIN_NUM_POINTS = 112 * 112
    mask_former.OVERSAMPLE_RATIO = 3.0
    mask_former.IMPORTANCE_SAMPLE_RATIO = 0.75
    # Transformer decoder. DEC_LAYERS counts predictions: the masked-attention decoder builds
    # DEC_LAYERS - 1 layers. [M2F]
    mask_former.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    mask_former.NHEADS = 8
    mask_former.DROPOUT = 0.1
    mask_former.DIM_FEEDFORWARD = 2048
    mask_former.ENC_LAYERS = 0
    mask_former.DEC_LAYERS = 6
    mask_former.PRE_NORM = False
    mask_former.HIDDEN_DIM = 256
    mask_former.NUM_OBJECT_QUERIES = 100
    mask_former.TRANSFORMER_IN_FEATURE = "res5"
    mask_former.ENFORCE_INPUT_PROJ = False
    # Batches are padded to a multiple of this; negative: the backbone's own divisor. [M2F]
    mask_former.SIZE_DIVISIBILITY = 32
    # Intra-Batch Supervision. [IBS, WACV 2023]
    mask_former.APPLY_IBS = False
    mask_former.IBS_WEIGHT = 0.0
    mask_former.IBS_POINT_SAMPLING = False
    # Whether a thing class with contiguous id 0 counts as a thing. False is what the published code
    # does; it matters where class 0 is a thing (Mapillary Vistas: bird; not Cityscapes). [ours]
    mask_former.IBS_COUNT_CLASS_ZERO = False
    # Weight of SeMask's per-pixel class loss. [SeMask]
    mask_former.CATE_WEIGHT = 0.4

    mask_former.TEST = CN()
    mask_former.TEST.SEMANTIC_ON = True
    mask_former.TEST.INSTANCE_ON = False
    mask_former.TEST.PANOPTIC_ON = False
    # Panoptic merging: strict lower bound on the class score of a kept query, and the visible share
    # of its own mask below which a segment is dropped. [MaskFormer]
    mask_former.TEST.OBJECT_MASK_THRESHOLD = 0.0
    mask_former.TEST.OVERLAP_THRESHOLD = 0.0
    # Resize mask logits to the output size before merging; on anyway for panoptic/instance. [M2F]
    mask_former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_pixel_decoder_keys(cfg: CN) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    # Channels of the per-pixel embedding (mask_features). [MaskFormer]
    head.MASK_DIM = 256
    head.TRANSFORMER_ENC_LAYERS = 0
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
    # Declared by the published code and never read by it (always 4 points, NHEADS heads): kept so
    # that its YAML files load. [M2F]
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS = 8


def _add_swin_keys(cfg: CN) -> None:
    cfg.MODEL.SWIN = CN()
    swin = cfg.MODEL.SWIN
    # Swin-T as published by Liu et al., ICCV 2021. [M2F]
    swin.PRETRAIN_IMG_SIZE = 224
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    swin.USE_CHECKPOINT = False
    # -1: everything learns, as published. 0 freezes the patch embedding, 1 also the position
    # embedding, k > 1 also the first k - 1 stages. The original class has it, its config has not.
    # [ours]
    swin.FROZEN_STAGES = -1
    # Semantic attention blocks after each stage. [SeMask]
    swin.SEM_WINDOW_SIZE = 7
    swin.NUM_SEM_BLOCKS = 1


def _add_dinat_keys(cfg: CN) -> None:
    cfg.MODEL.DINAT = CN()
    dinat = cfg.MODEL.DINAT
    # DiNAT-L; DILATIONS must be given by the config. [DiNAT]
    dinat.EMBED_DIM = 192
    dinat.DEPTHS = [3, 4, 18, 5]
    dinat.NUM_HEADS = [6, 12, 24, 48]
    dinat.KERNEL_SIZE = 7
    dinat.DILATIONS = None
    dinat.MLP_RATIO = 2.0
    dinat.QKV_BIAS = True
    dinat.QK_SCALE = None
    dinat.DROP_RATE = 0.0
    dinat.ATTN_DROP_RATE = 0.0
    dinat.DROP_PATH_RATE = 0.3
    dinat.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Initial value of a learned factor on residual branches; DiNAT-S and -B have 1e-5. [ours]
    dinat.LAYER_SCALE = None
    # 1 freezes the tokenizer, k > 1 the first k - 1 stages, too. [ours]
    dinat.FREEZE_AT = 0
    # Recompute the layers in the backward pass instead of keeping them: less memory. [ours]
    dinat.USE_CHECKPOINT = False


def _add_timm_keys(cfg: CN) -> None:
    # MODEL.BACKBONE.NAME build_timm_backbone: any model of timm with features of strides 4 to 32.
    # [ours]
    cfg.MODEL.TIMM = CN()
    timm = cfg.MODEL.TIMM
    timm.NAME = "resnet50"
    # None or False: random. True: timm's weights from its cache, or downloaded. Or a file's path.
    timm.PRETRAINED = None
    # A local file that takes the place of the download; wins over PRETRAINED.
    timm.PRETRAINED_FILE = ""
    # Which of timm's feature maps; empty: those of strides 4, 8, 16 and 32.
    timm.OUT_INDICES = []
    # As MODEL.BACKBONE.FREEZE_AT for ResNets: 0 nothing, 1 the stem, k also the first k - 1 stages.
    timm.FREEZE_AT = 0
    timm.DROP_PATH_RATE = 0.0
    timm.USE_CHECKPOINT = False
    # Batch norms: "" as they are, "FrozenBN" or "SyncBN".
    timm.NORM = ""
    # More keyword arguments of timm.create_model, in lower case.
    timm.OPTIONS = CN(new_allowed=True)


def _add_vit_adapter_keys(cfg: CN) -> None:
    # D2BEiTAdapter and D2ViTAdapter. Defaults: the published
    # mask2former_beitv2_adapter_large_16x1_3x_coco-panoptic. [ViT-Adapter, Chen et al., ICLR 2023]
    cfg.MODEL.VIT_ADAPTER = CN()
    adapter = cfg.MODEL.VIT_ADAPTER
    # The adapter. INTERACTION_INDEXES: first and last block between two exchanges with the adapter;
    # empty: four equal parts.
    adapter.CONV_INPLANE = 64
    adapter.N_POINTS = 4
    adapter.DEFORM_NUM_HEADS = 16
    adapter.DEFORM_RATIO = 0.5
    adapter.WITH_CFFN = True
    adapter.CFFN_RATIO = 0.25
    adapter.ADD_VIT_FEATURE = True
    adapter.INTERACTION_INDEXES = []
    adapter.INIT_VALUES = 1e-6
    adapter.DROP_PATH_RATE = 0.3
    adapter.USE_CHECKPOINT = False
    # Batch norm of the adapter: SyncBN as published, BN or FrozenBN. [ours]
    adapter.NORM = "SyncBN"
    # Train the adapter and the head only. [ours]
    adapter.FREEZE_ENCODER = False
    # Encoder of D2BEiTAdapter. WINDOW_ATTN and WINDOW_SIZE: one entry a block, or one for all.
    adapter.PATCH_SIZE = 16
    adapter.PRETRAIN_SIZE = 224
    adapter.EMBED_DIM = 1024
    adapter.DEPTH = 24
    adapter.NUM_HEADS = 16
    adapter.MLP_RATIO = 4.0
    adapter.QKV_BIAS = True
    adapter.DROP_RATE = 0.0
    adapter.ATTN_DROP_RATE = 0.0
    adapter.USE_ABS_POS_EMB = False
    adapter.USE_REL_POS_BIAS = True
    adapter.WINDOW_ATTN = [True]
    adapter.WINDOW_SIZE = [14, 14, 14, 14, 14, 56] * 4
    # Encoder of D2ViTAdapter: a plain transformer of timm (AugReg, DeiT, DINOv2, DINOv3, EVA), with
    # PRETRAINED, PRETRAINED_FILE and OPTIONS as in MODEL.TIMM. [ours]
    adapter.ENCODER = "vit_base_patch14_reg4_dinov2"
    adapter.PRETRAINED = None
    adapter.PRETRAINED_FILE = ""
    adapter.OPTIONS = CN(new_allowed=True)


def _add_robustness_keys(cfg: CN) -> None:
    # What a test image that cannot be decoded does to an evaluation: "raise" stops and names it,
    # "skip" goes on without it and reports the count. Training always goes on with another
    # image and reports the count at the end. [ours]
    cfg.TEST.ON_CORRUPT_IMAGE = "raise"
    # Images drawn with ground truth and prediction to TensorBoard at every evaluation. [ours]
    cfg.TEST.VIS_IMAGES = 4
    # Images larger than SIZE (height, width, after resizing) are predicted in tiles with at least
    # OVERLAP pixels in common and stitched, so that memory is that of one tile. AGREEMENT: how much
    # two parts must agree inside an overlap to be one object. [ours]
    cfg.TEST.TILING = CN()
    cfg.TEST.TILING.ENABLED = False
    cfg.TEST.TILING.SIZE = [1024, 1024]
    cfg.TEST.TILING.OVERLAP = 256
    cfg.TEST.TILING.AGREEMENT = 0.5


def _add_evaluation_keys(cfg: CN) -> None:
    # Who computes COCO and LVIS AP: "fast" is faster-coco-eval (C++, equal numbers), "pycocotools"
    # is pycocotools, or for LVIS the lvis package. [ours]
    cfg.TEST.COCO_EVAL = "fast"
    # Boundary IoU beside IoU in semantic segmentation, as current detectron2 does; release 0.6 does
    # not. False saves the erosion of every map. [ours]
    cfg.TEST.BOUNDARY_IOU = True
    # Adds Acc_th, Prec_th and PQ, SQ, RQ of every class to the results of panoptic segmentation,
    # hence to metrics.json and TensorBoard; so does APPLY_IBS. The log shows them anyway. [ours]
    cfg.TEST.PANOPTIC_DETAILS = False
    # With TEST.AUG.ENABLED: also evaluate with augmentation at the end of training, not only in
    # --eval-only. [ours]
    cfg.TEST.AUG.AFTER_TRAINING = False


def _add_prediction_dump_keys(cfg: CN) -> None:
    # Write <image_id>.png and .json of every panoptic prediction to SAVE_DIR/SAVE_DIR_NAME. [IBS]
    cfg.SAVE_DIR = "predictions"
    cfg.SAVE_DIR_NAME = ""
    cfg.SAVE_PREDICTIONS = False


def _add_speed_keys(cfg: CN) -> None:
    # The demo, the annotation tools and --eval-only fold the backbone's batch norms and run
    # convolutional backbones channels-last; training does likewise with what stays trainable.
    # False: neither, and the readable references of ops and post-processing instead of the fast
    # ones, to compare with. See docs/performance.md. [ours]
    cfg.MODEL.FAST = True
    # torch.compile, at the first images. MODEL: the network (on a GPU post-processing, too) of the
    # demo, the annotation tools and --eval-only. SOLVER: the network and the criterion of training.
    # Needs a C++ compiler. See docs/compile.md. [ours]
    cfg.MODEL.COMPILE = False
    cfg.SOLVER.COMPILE = False
