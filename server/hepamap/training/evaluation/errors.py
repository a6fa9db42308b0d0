"""What an evaluation can refuse; codes are stable."""

from __future__ import annotations

from hepamap.training.errors import TrainingError


class SplitEmptyError(TrainingError):
    """The table or the data set has nothing in the split that is asked for."""

    code = "split_empty"


class OneClassError(TrainingError):
    """Thresholds and AUC need tumour and non-tumour; there is only one of them."""

    code = "one_class"


class NothingMeasuredError(TrainingError):
    """No patch has both tissue and a label, or no slide is evaluable."""

    code = "nothing_measured"
