from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.errors import FilesetError
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.fileset_parts import select

FILESET = Fileset(
    [
        Dataset("TTbar", (DataFile("/store/tt/2024C/1.root"), DataFile("/store/tt/2024D/2.root")), {"xsec": 1}),
        Dataset("TTW", (DataFile("/store/ttw/2024D/1.root"),)),
        Dataset("Data", (DataFile("/store/data/2024C/1.root"),)),
    ]
)
PATTERNS = st.lists(st.sampled_from(["*", "TT*", "T?W", "Data", "[TD]*"]), max_size=3)
LFN_PATTERNS = st.lists(st.sampled_from(["*", "*2024C*", "/store/tt*", "*/1.root"]), max_size=3)


def names(fileset):
    return [(dataset.name, file.lfn) for dataset in fileset.values() for file in dataset.files]


@given(PATTERNS, LFN_PATTERNS)
def test_each_file_that_matches_and_no_other(datasets, files):
    def wanted(name, patterns):
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    expected = [pair for pair in names(FILESET) if wanted(pair[0], datasets) and wanted(pair[1], files)]
    try:
        assert names(select(FILESET, datasets, files)) == expected
    except FilesetError:  # a pattern for files matches nothing in these datasets
        lfns = [lfn for name, lfn in names(FILESET) if wanted(name, datasets)]
        assert any(not any(fnmatchcase(lfn, pattern) for lfn in lfns) for pattern in files)


def test_metadata_stays_and_empty_datasets_go():
    part = select(FILESET, files=["*2024C*"])
    assert list(part) == ["TTbar", "Data"]
    assert part["TTbar"].metadata == {"xsec": 1}


@pytest.mark.parametrize(
    ("datasets", "files", "message"),
    [
        (["TTBar"], [], "did you mean 'TTbar'"),
        (["TT*", "QCD*"], [], r"No dataset of the fileset matches 'QCD\*'"),
        ([], ["2024C"], r"No LFN of the fileset matches '2024C'.*begin it with"),
        (["Data"], ["*2024D*"], r"No LFN of the datasets that match Data matches '\*2024D\*'"),
    ],
)
def test_a_pattern_that_matches_nothing(datasets, files, message):
    with pytest.raises(FilesetError, match=message):
        select(FILESET, datasets, files)
