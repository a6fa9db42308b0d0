"""What the operator wants to know: running totals for the metrics, and whether everything is as the settings say.

- `tallies`: counted by every process, kept in the job database.
- `packs`: whether the model packs are whole, without hashing them at every question.
- `keeping`: how long results and uploads are kept.
- `findings`, `doctor`: the checks behind `hepamap doctor`.
"""
