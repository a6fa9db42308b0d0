"""How good models are: on patches of a data set, on whole slides, as tables, figures and a JSON report.

`plan` says what is to be done, `run` does it; the rest is pure: `scores`, `bootstrap`, `operating_points`, `calibration`
and `truth` are arithmetic on arrays, `tables`, `figures` and `sheet` draw what was measured.
"""
