"""Files of which nothing is parsed that is known already.

Most of what a small chunk costs is uproot's parsing of the metadata of all branches, and coffea's forms of them. All
files of a production have the same of both: a process makes them once (`layouts`). Of a further file it takes the
table of its baskets straight from the bytes of the tree (`ttree_scanner`), makes branches of uproot's own classes of
what is used (`scanned_tree`), and gives them to coffea's own factory (`factory`). Whatever is unusual is left to
uproot and coffea.

Names that uproot and coffea do not promise to keep: ``Model_TBranch_v13`` and ``Model_TTree_v20`` with ``_members``,
``_file``, ``_parent``, ``_lookup``, ``_cache_key`` and ``_interpretation``; ``ReadOnlyFile._begin_chunk``;
``ReadOnlyKey.get_uncompressed_chunk_cursor``; ``UprootSourceMapping._extract_base_form``;
``NanoEventsFactory._from_mapping``. Each layout is tested against what uproot parses before it is used, and a name that
is gone means that nothing is known.
"""
