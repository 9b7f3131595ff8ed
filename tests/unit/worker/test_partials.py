"""What lies on a scratch: partials that are written, merged, found again, sent home, and removed."""

import shutil
import tempfile

import cramjam
import pytest

from cafetal.shipping.shipment import pack_function
from cafetal.worker import atomic_files, bootstrap, partials, reduce_tasks
from cafetal.worker.site_context import SiteContext
from cafetal.worker.stores.file_stores import FileStore
from tests.unit.worker.test_map_task import kept, unpacked


def test_reduce_merges_checks_and_can_be_repeated(tmp_path):
    folder = tmp_path / "runs" / "r"
    archive = empty_archive(tmp_path)
    results = [{"partial": kept(folder, f"p{i}", {"n": i}, i)} for i in range(4)] + [{"partial": None}]
    (folder / "p3").write_bytes(b"3\n" + b"damaged")
    common = {"run": "r", "site": "desy", "name": "out", "archive": archive, "trusted": True}
    first = reduce_tasks.reduce(SiteContext(tmp_path), *results, **common)
    assert first["partial"]["chunks"] == "0-2"
    assert len(first["lost"]) == 1
    assert (first["lost"][0]["kind"], first["lost"][0]["chunks"]) == ("partial", "3")
    assert "p3 has changed" in first["lost"][0]["messages"][0]
    assert unpacked(partials.read_bytes(FileStore(folder), first["partial"])) == {"n": 3}
    assert not (folder / "p0").exists()
    again = reduce_tasks.reduce(
        SiteContext(tmp_path), *results, **common
    )  # as after the loss of the worker that did it
    assert again["partial"] == first["partial"]


def empty_archive(scratch):
    shipment = pack_function(len)
    bootstrap.install(str(scratch), "files", shipment.files, [], [])
    return shipment.modules


def test_reduce_refuses_what_is_there_twice(tmp_path):
    folder, archive = tmp_path / "runs" / "r", empty_archive(tmp_path)
    results = [{"partial": kept(folder, f"p{i}", {"n": 1}, 7)} for i in range(2)]
    result = reduce_tasks.reduce(
        SiteContext(tmp_path), *results, run="r", site="desy", name="out", archive=archive, trusted=True
    )
    assert "Chunk 7 appears twice" in result["lost"][0]["messages"][0]
    assert result["partial"]["chunks"] == "7"


def test_reduce_of_outputs_that_do_not_add(tmp_path):
    folder, archive = tmp_path / "runs" / "r", empty_archive(tmp_path)
    values = ({"n": 1}, {"n": "text"})
    results = [{"partial": kept(folder, f"p{i}", v, i)} for i, v in enumerate(values)]
    result = reduce_tasks.reduce(
        SiteContext(tmp_path), *results, run="r", site="desy", name="out", archive=archive, trusted=True
    )
    assert result["failure"]["kind"] == "processor"


def test_nothing_to_reduce(tmp_path):
    archive = empty_archive(tmp_path)
    result = reduce_tasks.reduce(
        SiteContext(tmp_path), {"partial": None}, run="r", site="desy", name="out", archive=archive, trusted=True
    )
    assert result["partial"] is None


def test_partials_are_private_whole_and_checked(tmp_path):
    folder = tmp_path / "scratch" / "runs" / "r"
    reference = kept(folder, "p", [1, 2], 1)
    assert [path.name for path in folder.iterdir()] == ["p"]
    for path in (folder, folder.parent, folder.parent.parent):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(partials.PartialLost, match="holds the chunks 1, not 2"):
        partials.read_bytes(FileStore(folder), {**reference, "chunks": "2"})
    (folder / "p").unlink()
    with pytest.raises(partials.PartialLost, match="not in the store of its site any more"):
        partials.read_bytes(FileStore(folder), reference)
    with pytest.raises(FileExistsError):
        atomic_files.write_bytes(folder / "x" / "y", b"") if (folder / "x").write_text("a file") else None


def test_a_partial_that_lies_about_its_chunks_is_not_found(tmp_path):
    """One flipped bit of the header makes 0-3 of 0-7: the seal covers that too."""
    kept(tmp_path, "p", [1], *range(4))
    assert partials.find(FileStore(tmp_path), "p")["chunks"] == "0-3"
    content = (tmp_path / "p").read_bytes()
    for other in (b"0-7", b"0m3", b"1-3"):
        (tmp_path / "p").write_bytes(content.replace(b"0-3", other, 1))
        assert partials.find(FileStore(tmp_path), "p") is None


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        atomic_files.write_bytes(tmp_path / "p", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_peek_merges_what_is_there_and_takes_nothing(tmp_path):
    folder, archive = tmp_path / "runs" / "r", empty_archive(tmp_path)
    for number in range(6):
        kept(folder, f"desy.1.map-{number}", {"n": 10**number}, number)
    kept(folder, "desy.1.reduce-0-0", {"n": 11}, 0, 1)  # as long as its inputs are not removed
    kept(folder, "desy.1.map-7", {"n": 1}, 5, 6)  # of a task that was late: 5 counts here, but 6 does elsewhere
    (folder / "desy.1.map-4").write_bytes(b"4 damaged")
    before = sorted(path.name for path in folder.iterdir())
    asked = {"run": "r", "chunks": "0-2,4-5,9", "archive": archive, "trusted": True}
    found = reduce_tasks.peek(SiteContext(tmp_path), name="desy.1.peek-0", **asked)
    assert found["chunks"] == "0-2,5"
    assert unpacked(partials.read_bytes(FileStore(folder), found)) == {"n": 100_111}
    again = reduce_tasks.peek(SiteContext(tmp_path), name="desy.1.peek-0", **asked)  # which finds what it has merged
    assert again == found
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "desy.1.peek-0"])
    assert reduce_tasks.peek(SiteContext(tmp_path), name="desy.1.peek-0", **{**asked, "chunks": "9"}) is None


def test_a_survey_finds_what_is_whole_and_keeps_it(tmp_path):
    """Also if a reduce of an earlier attempt removes its inputs afterwards."""
    folder = tmp_path / "runs" / "r"
    for number in range(3):
        kept(folder, f"desy.1.map-{number}", {"n": number}, number)
    (folder / "desy.1.map-2").write_bytes(b"2 damaged")
    found = reduce_tasks.survey(SiteContext(tmp_path), run="r", attempt=2)
    assert [reference["chunks"] for reference in found] == ["0", "1"]
    for number in range(3):
        (folder / f"desy.1.map-{number}").unlink()
    assert [unpacked(partials.read_bytes(FileStore(folder), reference))["n"] for reference in found] == [0, 1]
    assert len(reduce_tasks.survey(SiteContext(tmp_path), run="r", attempt=3)) == 2
    assert reduce_tasks.survey(SiteContext(tmp_path), run="none", attempt=1) == []
    (leftover,) = reduce_tasks.leftovers(SiteContext(tmp_path), staging="")
    assert (leftover["run"], leftover["partials"]) == ("r", 4)


def test_fetch_in_parts(tmp_path):
    folder = tmp_path / "runs" / "r"
    reference = kept(folder, "p", list(range(1000)), 0)
    parts = [
        reduce_tasks.fetch(SiteContext(tmp_path), run="r", reference=reference, offset=start, length=700, compression=c)
        for start, c in zip(range(0, reference["size"], 700), [1, None, 3, 1, 1, 1], strict=False)
    ]
    zstd = b"\x28\xb5\x2f\xfd"
    whole = b"".join(bytes(cramjam.zstd.decompress(p)) if p[:4] == zstd else p for p in parts)
    partials.check(whole, reference)
    assert unpacked(whole) == list(range(1000))


def test_clean_that_comes_late_leaves_the_next_life_alone(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    old = ["desy.1.map-0", "a.7.b.1.reduce-0-3", "1.found-4", ".desy.1.map-5.x1y2", "strange"]
    new = ["desy.2.map-0", "2.found-1", ".desy.2.reduce-0-1.z3"]
    for name in (*old, *new):
        (folder / name).touch()
    reduce_tasks.clean(SiteContext(tmp_path), run="mine", attempt=1, keep_days=1, staging="")
    assert sorted(path.name for path in folder.iterdir()) == sorted(new)
    reduce_tasks.clean(SiteContext(tmp_path), run="mine", attempt=2, keep_days=1, staging="")
    assert not folder.exists()


def test_a_partial_is_written_though_its_folder_is_cleaned_away(tmp_path, monkeypatch):
    made = tempfile.mkstemp

    def late(**options):
        if not late.done:
            late.done = True
            shutil.rmtree(tmp_path / "runs")
        return made(**options)

    late.done = False
    monkeypatch.setattr(tempfile, "mkstemp", late)
    atomic_files.write_bytes(tmp_path / "runs" / "mine" / "p", b"x")
    assert (tmp_path / "runs" / "mine" / "p").read_bytes() == b"x"


def test_clean(tmp_path):
    for path in ("runs/mine/p", "runs/other/p", "code/new.zip"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    reduce_tasks.clean(SiteContext(tmp_path), run="mine", attempt=None, keep_days=1, staging="")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"p", "new.zip"}
    assert not (tmp_path / "runs" / "mine").exists()
    reduce_tasks.clean(SiteContext(tmp_path), run="mine", attempt=1, keep_days=-1, staging="")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_attempt_that_is_stopped_and_those_after_it(tmp_path):
    place = SiteContext(tmp_path)
    assert not place.stopped("r", 1)
    reduce_tasks.stop(place, run="r", attempt=1)
    assert place.stopped("r", 1)
    assert not place.stopped("r", 2)
    assert not place.stopped("other", 1)
    reduce_tasks.stop(place, run="r", attempt=2)
    reduce_tasks.clean(place, run="r", attempt=1, keep_days=14, staging="")
    assert not place.stopped("r", 1)
    assert place.stopped("r", 2)
    reduce_tasks.clean(place, run="r", attempt=None, keep_days=14, staging="")
    assert not place.stopped("r", 2)
    assert not reduce_tasks.leftovers(place, staging="")
