"""The tables of a labelled archive: writing, reading, merging, renaming, searching, exporting."""
