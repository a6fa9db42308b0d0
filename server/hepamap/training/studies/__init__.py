"""The paper's studies at a scale that can be paid for: factors of training, number of patches, step between patches.

A study is many runs in one folder. Each finished run is a row of `runs.csv`, so a study that was killed goes on with the
runs that are missing. From the bottom up:

- `plan`: the study as a TOML file, and the recipe of each run;
- `table`, `summary`: the rows of finished runs, and what they say together;
- `figures`, `report`: pictures and tables;
- `training_run`, `loop`: one training and its score; all of them, one after the other;
- `factors`, `data_size`, `stride`: what `hepamap study` calls.
"""
