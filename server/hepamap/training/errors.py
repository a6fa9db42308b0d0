"""What training can refuse or fail at; codes are stable."""

from __future__ import annotations

from hepamap.errors import HepamapError


class TrainingError(HepamapError):
    """Training, or making its data, cannot go on."""

    code = "training_error"


class AnnotationError(TrainingError):
    """An annotation file cannot be used."""

    code = "annotation_error"


class AnnotationNotFoundError(AnnotationError):
    """There is no annotation file at the path."""

    code = "annotation_not_found"


class AnnotationInvalidError(AnnotationError):
    """The file is not what the viewers write that are known."""

    code = "annotation_invalid"


class AnnotationOutsideError(AnnotationError):
    """What was drawn lies outside of its slide."""

    code = "annotation_outside"


class ClassesUnknownError(AnnotationError):
    """None of the class names in an annotation file means anything here."""

    code = "classes_unknown"


class CohortInvalidError(TrainingError):
    """The table of slides is incomplete or contradicts itself."""

    code = "cohort_invalid"


class GroupInTwoSplitsError(CohortInvalidError):
    """Slides of one tumour or patient stand in two splits: the score would be a lie."""

    code = "group_in_two_splits"


class SlideInTwoSplitsError(CohortInvalidError):
    """One slide, under two names, stands in two splits: the score would be a lie."""

    code = "slide_in_two_splits"


class WorkerLostError(HepamapError):
    """A process that worked for this one was killed."""

    code = "worker_lost"


class DatasetEmptyError(TrainingError):
    """There is no patch of a class, or nothing of a split."""

    code = "dataset_empty"


class PatchesTooFewError(TrainingError):
    """There are fewer patches or fields than a data set, a recipe or a study asks for."""

    code = "patches_too_few"


class StudyBusyError(TrainingError):
    """Another process works in the folder of a study."""

    code = "study_busy"


class DatasetInvalidError(TrainingError):
    """A data set on disk is incomplete, or does not fit the recipe."""

    code = "dataset_invalid"


class RecipeInvalidError(TrainingError):
    """A recipe has an unknown key or a value out of range."""

    code = "recipe_invalid"


class InitialWeightsMissingError(TrainingError):
    """The weights to start from are not there."""

    code = "initial_weights_missing"


class ResumeImpossibleError(TrainingError):
    """A training cannot go on from what is in its run folder."""

    code = "resume_impossible"


class TensorBoardMissingError(TrainingError):
    """A log for TensorBoard is asked for, but it is not installed."""

    code = "tensorboard_missing"


class TrainingDivergedError(TrainingError):
    """The loss is no longer a number."""

    code = "training_diverged"


class PrecisionUnavailableError(TrainingError):
    """A recipe asks for arithmetic that this machine would have to imitate."""

    code = "precision_unavailable"
