"""@configurable, instantiate and lazy configs."""

import pytest

import detectron2
from detectron2.config import LazyConfig, configurable, get_cfg, instantiate


class Plain:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, c=30):
        return {"a": cfg.SEED, "c": c}


def test_explicit_arguments_reach_the_constructor_unchanged():
    assert Plain(1).values == (1, 2, 3)
    assert Plain(a=1, b=5, c=6).values == (1, 5, 6)


@pytest.mark.parametrize("by_keyword", [False, True])
def test_config_is_translated_by_from_config(by_keyword):
    cfg = get_cfg()
    made = Plain(cfg=cfg) if by_keyword else Plain(cfg)
    assert made.values == (-1, 2, 30)


def test_keywords_that_from_config_takes_are_given_to_it_and_others_override():
    assert Plain(get_cfg(), c=7, b=8).values == (-1, 8, 7)
    assert Plain(get_cfg(), a=9).values == (9, 2, 30)


def test_subclasses_override_from_config():
    class Sub(Plain):
        @classmethod
        def from_config(cls, cfg):
            return {"a": "sub"}

    assert Sub(get_cfg()).values == ("sub", 2, 3)


def test_from_config_with_kwargs_gets_everything():
    class Greedy(Plain):
        @classmethod
        def from_config(cls, cfg, **kwargs):
            return {"a": sorted(kwargs)}

    assert Greedy(get_cfg(), b=1, c=2).values == (["b", "c"], 2, 3)


def test_a_class_may_take_the_config_itself():
    class Keeps:
        @configurable
        def __init__(self, cfg, extra=1):
            self.cfg, self.extra = cfg, extra

        @classmethod
        def from_config(cls, cfg):
            return {"cfg": cfg, "extra": 2}

    cfg = get_cfg()
    assert Keeps(cfg).cfg is cfg
    assert Keeps(cfg).extra == 2


def test_functions_can_be_configurable():
    @configurable(from_config=lambda cfg, b=0: {"a": cfg.SEED, "b": b})
    def add(a, b, c=1):
        return (a, b, c)

    assert add(1, 2) == (1, 2, 1)
    assert add(get_cfg(), b=4, c=5) == (-1, 4, 5)


def test_missing_from_config_is_an_attribute_error():
    class Without:
        @configurable
        def __init__(self, a):
            pass

    with pytest.raises(AttributeError, match="from_config"):
        Without(get_cfg())


def test_from_config_has_to_be_a_classmethod():
    class Wrong:
        @configurable
        def __init__(self, a):
            pass

        def from_config(self, cfg):
            return {}

    with pytest.raises(TypeError, match="classmethod"):
        Wrong(get_cfg())


def test_first_parameter_has_to_be_called_cfg():
    class Wrong:
        @configurable
        def __init__(self, a):
            pass

        @classmethod
        def from_config(cls, config):
            return {}

    with pytest.raises(TypeError, match="'cfg'"):
        Wrong(get_cfg())


def test_decorator_refuses_other_methods():
    with pytest.raises(AssertionError, match="Incorrect use"):

        class Wrong:
            @configurable
            def build(self, a):
                pass


def test_instantiate_builds_from_the_inside_out():
    made = instantiate(
        {
            "_target_": "torch.nn.Sequential",
        }
    )
    assert len(made) == 0
    nested = {"_target_": dict, "inner": {"_target_": "fractions.Fraction", "numerator": 3}}
    assert instantiate(nested)["inner"] == 3
    assert instantiate([nested, 1])[1] == 1


def test_lazy_config_file_is_loaded_and_overridden(tmp_path):
    pytest.importorskip("omegaconf")
    path = tmp_path / "lazy.yaml"
    path.write_text("model:\n  _target_: fractions.Fraction\n  numerator: 1\n  denominator: 2\n")
    cfg = LazyConfig.load(str(path))
    cfg = LazyConfig.apply_overrides(cfg, ["model.denominator=4"])
    assert instantiate(cfg.model) == 0.25


def test_overrides_are_numbers_where_they_look_like_it_and_make_their_parents():
    cfg = pytest.importorskip("omegaconf").OmegaConf.create({"train": {"lr": 0.1}})
    given = ["train.lr=1e-4", "a.b.c=5", "train.size=[1, 2]", "train.flag=true", "name=x"]
    cfg = LazyConfig.apply_overrides(cfg, given)
    assert cfg.train == {"lr": 0.0001, "size": [1, 2], "flag": True}
    assert (cfg.a.b.c, cfg.name) == (5, "x")
    with pytest.raises(KeyError, match=r"train\.lr is not a config, but has type float"):
        LazyConfig.apply_overrides(cfg, ["train.lr.x=1"])


@pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="detectron2 runs lazy configs"
)
def test_lazy_config_in_python_is_not_run(tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text("raise SystemExit('ran')\n")
    with pytest.raises(ValueError, match="install detectron2 itself"):
        LazyConfig.load(str(path))
