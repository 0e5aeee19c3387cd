"""The default tree of ``get_cfg()``: every key of detectron2, with detectron2's defaults.

Keys that d2lite itself never reads (detection heads, proposals) are present too, because YAML
files written for detectron2 set them, and an unknown key is an error.
"""

from detectron2._missing import missing_getattr
from detectron2.config.config import CfgNode as CN

__all__ = ["CN"]

_C = CN(
    {
        # cuDNN picks its algorithms by measuring; only worth it for inputs of one size.
        "CUDNN_BENCHMARK": False,
        "DATALOADER": {
            # Batches hold either wide or tall images: less padding.
            "ASPECT_RATIO_GROUPING": True,
            "FILTER_EMPTY_ANNOTATIONS": True,
            "NUM_WORKERS": 4,
            "REPEAT_SQRT": True,
            # For RepeatFactorTrainingSampler: categories rarer than this share are repeated.
            "REPEAT_THRESHOLD": 0.0,
            "SAMPLER_TRAIN": "TrainingSampler",
        },
        "DATASETS": {
            "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
            "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
            "PROPOSAL_FILES_TEST": (),
            "PROPOSAL_FILES_TRAIN": (),
            "TEST": (),
            "TRAIN": (),
        },
        # torch.set_float32_matmul_precision: "", "highest", "high" or "medium".
        "FLOAT32_PRECISION": "",
        # A place for experiments.
        "GLOBAL": {
            "HACK": 1.0,
        },
        "INPUT": {
            # TYPE: relative, relative_range, absolute or absolute_range; SIZE: (height, width).
            "CROP": {
                "ENABLED": False,
                "SIZE": [0.9, 0.9],
                "TYPE": "relative_range",
            },
            # Channel order that PIXEL_MEAN and PIXEL_STD refer to.
            "FORMAT": "BGR",
            "MASK_FORMAT": "polygon",
            "MAX_SIZE_TEST": 1333,
            "MAX_SIZE_TRAIN": 1333,
            "MIN_SIZE_TEST": 800,
            # Lengths of the shorter side in pixels; 0 for MIN_SIZE_TEST switches resizing off.
            "MIN_SIZE_TRAIN": (800,),
            # "choice" picks one of MIN_SIZE_TRAIN, "range" anything between two values.
            "MIN_SIZE_TRAIN_SAMPLING": "choice",
            # "horizontal", "vertical" or "none".
            "RANDOM_FLIP": "horizontal",
        },
        "MODEL": {
            "ANCHOR_GENERATOR": {
                "ANGLES": [[-90, 0, 90]],
                "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
                "NAME": "DefaultAnchorGenerator",
                "OFFSET": 0.0,
                "SIZES": [[32, 64, 128, 256, 512]],
            },
            "BACKBONE": {
                # ResNet: 0 freezes nothing, 1 the stem, k the stem and the stages up to res<k>.
                "FREEZE_AT": 2,
                "NAME": "build_resnet_backbone",
            },
            "DEVICE": "cuda",
            "FPN": {
                "FUSE_TYPE": "sum",
                "IN_FEATURES": [],
                "NORM": "",
                "OUT_CHANNELS": 256,
            },
            "KEYPOINT_ON": False,
            "LOAD_PROPOSALS": False,
            "MASK_ON": False,
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "PANOPTIC_FPN": {
                "COMBINE": {
                    "ENABLED": True,
                    "INSTANCES_CONFIDENCE_THRESH": 0.5,
                    "OVERLAP_THRESH": 0.5,
                    "STUFF_AREA_LIMIT": 4096,
                },
                "INSTANCE_LOSS_WEIGHT": 1.0,
            },
            # Of ImageNet, in BGR order, 0..255; a std of 1 is folded into the (MSRA) weights.
            "PIXEL_MEAN": [103.53, 116.28, 123.675],
            "PIXEL_STD": [1.0, 1.0, 1.0],
            "PROPOSAL_GENERATOR": {
                "MIN_SIZE": 0,
                "NAME": "RPN",
            },
            "RESNETS": {
                "DEFORM_MODULATED": False,
                "DEFORM_NUM_GROUPS": 1,
                "DEFORM_ON_PER_STAGE": [False, False, False, False],
                "DEPTH": 50,
                "NORM": "FrozenBN",
                "NUM_GROUPS": 1,
                "OUT_FEATURES": ["res4"],
                "RES2_OUT_CHANNELS": 256,
                "RES5_DILATION": 1,
                "STEM_OUT_CHANNELS": 64,
                # MSRA weights have the stride in the first 1x1; torchvision's in the 3x3 (False).
                "STRIDE_IN_1X1": True,
                "WIDTH_PER_GROUP": 64,
            },
            "RETINANET": {
                "BBOX_REG_LOSS_TYPE": "smooth_l1",
                "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
                "FOCAL_LOSS_ALPHA": 0.25,
                "FOCAL_LOSS_GAMMA": 2.0,
                "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
                "IOU_LABELS": [0, -1, 1],
                "IOU_THRESHOLDS": [0.4, 0.5],
                "NMS_THRESH_TEST": 0.5,
                "NORM": "",
                "NUM_CLASSES": 80,
                "NUM_CONVS": 4,
                "PRIOR_PROB": 0.01,
                "SCORE_THRESH_TEST": 0.05,
                "SMOOTH_L1_LOSS_BETA": 0.1,
                "TOPK_CANDIDATES_TEST": 1000,
            },
            "ROI_BOX_CASCADE_HEAD": {
                "BBOX_REG_WEIGHTS": (
                    (10.0, 10.0, 5.0, 5.0),
                    (20.0, 20.0, 10.0, 10.0),
                    (30.0, 30.0, 15.0, 15.0),
                ),
                "IOUS": (0.5, 0.6, 0.7),
            },
            "ROI_BOX_HEAD": {
                "BBOX_REG_LOSS_TYPE": "smooth_l1",
                "BBOX_REG_LOSS_WEIGHT": 1.0,
                "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
                "CLS_AGNOSTIC_BBOX_REG": False,
                "CONV_DIM": 256,
                "FC_DIM": 1024,
                "FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
                "FED_LOSS_NUM_CLASSES": 50,
                "NAME": "",
                "NORM": "",
                "NUM_CONV": 0,
                "NUM_FC": 0,
                "POOLER_RESOLUTION": 14,
                "POOLER_SAMPLING_RATIO": 0,
                "POOLER_TYPE": "ROIAlignV2",
                "SMOOTH_L1_BETA": 0.0,
                "TRAIN_ON_PRED_BOXES": False,
                "USE_FED_LOSS": False,
                "USE_SIGMOID_CE": False,
            },
            "ROI_HEADS": {
                "BATCH_SIZE_PER_IMAGE": 512,
                "IN_FEATURES": ["res4"],
                "IOU_LABELS": [0, 1],
                "IOU_THRESHOLDS": [0.5],
                "NAME": "Res5ROIHeads",
                "NMS_THRESH_TEST": 0.5,
                "NUM_CLASSES": 80,
                "POSITIVE_FRACTION": 0.25,
                "PROPOSAL_APPEND_GT": True,
                "SCORE_THRESH_TEST": 0.05,
            },
            "ROI_KEYPOINT_HEAD": {
                "CONV_DIMS": (512, 512, 512, 512, 512, 512, 512, 512),
                "LOSS_WEIGHT": 1.0,
                "MIN_KEYPOINTS_PER_IMAGE": 1,
                "NAME": "KRCNNConvDeconvUpsampleHead",
                "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
                "NUM_KEYPOINTS": 17,
                "POOLER_RESOLUTION": 14,
                "POOLER_SAMPLING_RATIO": 0,
                "POOLER_TYPE": "ROIAlignV2",
            },
            "ROI_MASK_HEAD": {
                "CLS_AGNOSTIC_MASK": False,
                "CONV_DIM": 256,
                "NAME": "MaskRCNNConvUpsampleHead",
                "NORM": "",
                "NUM_CONV": 0,
                "POOLER_RESOLUTION": 14,
                "POOLER_SAMPLING_RATIO": 0,
                "POOLER_TYPE": "ROIAlignV2",
            },
            "RPN": {
                "BATCH_SIZE_PER_IMAGE": 256,
                "BBOX_REG_LOSS_TYPE": "smooth_l1",
                "BBOX_REG_LOSS_WEIGHT": 1.0,
                "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
                "BOUNDARY_THRESH": -1,
                "CONV_DIMS": [-1],
                "HEAD_NAME": "StandardRPNHead",
                "IN_FEATURES": ["res4"],
                "IOU_LABELS": [0, -1, 1],
                "IOU_THRESHOLDS": [0.3, 0.7],
                "LOSS_WEIGHT": 1.0,
                "NMS_THRESH": 0.7,
                "POSITIVE_FRACTION": 0.5,
                "POST_NMS_TOPK_TEST": 1000,
                "POST_NMS_TOPK_TRAIN": 2000,
                "PRE_NMS_TOPK_TEST": 6000,
                "PRE_NMS_TOPK_TRAIN": 12000,
                "SMOOTH_L1_BETA": 0.0,
            },
            "SEM_SEG_HEAD": {
                "COMMON_STRIDE": 4,
                "CONVS_DIM": 128,
                "IGNORE_VALUE": 255,
                "IN_FEATURES": ["p2", "p3", "p4", "p5"],
                "LOSS_WEIGHT": 1.0,
                "NAME": "SemSegFPNHead",
                "NORM": "GN",
                "NUM_CLASSES": 54,
            },
            # Path or address of a checkpoint; empty: initial values.
            "WEIGHTS": "",
        },
        "OUTPUT_DIR": "./output",
        # Negative: a fresh seed in every run.
        "SEED": -1,
        "SOLVER": {
            # Mixed precision training.
            "AMP": {
                "ENABLED": False,
            },
            "BASE_LR": 0.001,
            "BASE_LR_END": 0.0,
            "BIAS_LR_FACTOR": 1.0,
            "CHECKPOINT_PERIOD": 5000,
            # CLIP_TYPE: "value" or "norm", per parameter; projects may add types.
            "CLIP_GRADIENTS": {
                "CLIP_TYPE": "value",
                "CLIP_VALUE": 1.0,
                "ENABLED": False,
                "NORM_TYPE": 2.0,
            },
            "GAMMA": 0.1,
            "IMS_PER_BATCH": 16,
            "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
            "MAX_ITER": 40000,
            "MOMENTUM": 0.9,
            "NESTEROV": False,
            "NUM_DECAYS": 3,
            # If > 0, the schedule was made for this many processes and is rescaled to the run's.
            "REFERENCE_WORLD_SIZE": 0,
            "RESCALE_INTERVAL": False,
            "STEPS": (30000,),
            "WARMUP_FACTOR": 0.001,
            "WARMUP_ITERS": 1000,
            "WARMUP_METHOD": "linear",
            "WEIGHT_DECAY": 0.0001,
            # None: the same as WEIGHT_DECAY.
            "WEIGHT_DECAY_BIAS": None,
            "WEIGHT_DECAY_NORM": 0.0,
        },
        "TEST": {
            # Test-time augmentation: sizes of the shorter side, each with its mirror image if FLIP.
            "AUG": {
                "ENABLED": False,
                "FLIP": True,
                "MAX_SIZE": 4000,
                "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
            },
            "DETECTIONS_PER_IMAGE": 100,
            "EVAL_PERIOD": 0,
            # [[task, metric, expected value, tolerance], ...] checked after the last evaluation.
            "EXPECTED_RESULTS": [],
            "KEYPOINT_OKS_SIGMAS": [],
            "PRECISE_BN": {
                "ENABLED": False,
                "NUM_ITER": 200,
            },
        },
        # Version of the key names; see compat.py.
        "VERSION": 2,
        "VIS_PERIOD": 0,
    }
)

__getattr__ = missing_getattr(__name__)
