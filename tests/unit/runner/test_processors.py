"""Processors and schemas by path or name."""

import pytest

from cafetal.runner.processors import load_processor, load_schema


def test_processors_by_path(tmp_path, monkeypatch):
    (tmp_path / "mine_z.py").write_text(
        "from coffea import processor\n"
        "class One(processor.ProcessorABC):\n"
        "    def __init__(self, a=1): self.a = a\n"
        "    def process(self, e): return {}\n"
        "    def postprocess(self, o): pass\n"
        "def function(events): return {}\n"
        "instance = One(7)\n"
        "number = 5\n"
    )
    path = str(tmp_path / "mine_z.py")
    assert load_processor(path, {"a": 3}).a == 3
    assert load_processor(f"{path}:One", {}).a == 1
    assert load_processor(f"{path}:function", {})(None) == {}
    assert load_processor(f"{path}:instance", {}).a == 7
    assert load_processor("mine_z:One", {}).a == 1
    for name, arguments, sentence in (
        (f"{path}:function", {"a": 1}, "takes no `--arg`"),
        (f"{path}:number", {}, "neither a processor nor a function"),
        (f"{path}:Oen", {}, "did you mean 'One'"),
        (f"{path}:One", {"b": 1}, r"It takes \(a=1\)"),
        ("no_such_module_z:P", {}, "cannot be imported"),
    ):
        with pytest.raises(LookupError, match=sentence):
            load_processor(name, arguments)
    (tmp_path / "two_z.py").write_text("class A: pass\n")
    with pytest.raises(LookupError, match="has 0 processors"):
        load_processor(str(tmp_path / "two_z.py"), {})
    for folder in ("other", "third"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine_z.py").write_text("def other(events): return {}\n")
    assert load_processor(str(tmp_path / "other" / "mine_z.py:other"), {}).__module__ == "user_mine_z"
    with pytest.raises(LookupError, match="are already loaded"):
        load_processor(str(tmp_path / "third" / "mine_z.py:other"), {})


def test_schemas():
    assert load_schema("BaseSchema").__name__ == "BaseSchema"
    with pytest.raises(ValueError, match="did you mean 'NanoAODSchema'"):
        load_schema("NanoAODShema")
