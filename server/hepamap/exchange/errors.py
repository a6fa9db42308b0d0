"""What importing and exporting models can refuse; codes are stable."""

from __future__ import annotations

from hepamap.errors import ModelError


class ModelFileUnreadableError(ModelError):
    """The file is not there, truncated, or none of the formats that are known."""

    code = "model_file_unreadable"


class ModelFileUnsafeError(ModelError):
    """The file points outside of itself, or would unpack to far more than a network needs."""

    code = "model_file_unsafe"


class LayerRefusedError(ModelError):
    """The file has a layer that no network of the paper has: a Lambda, a custom object, an unknown class."""

    code = "model_layer_refused"


class NetworkMismatchError(ModelError):
    """The file's network or the shapes of its weights are not those of the network that was named."""

    code = "model_network_mismatch"


class NetworkAmbiguousError(ModelError):
    """The file fits several networks, or its weights several places."""

    code = "model_network_ambiguous"


class ImportUnconfirmedError(ModelError):
    """Something that a file cannot say was not said: the order of classes, the scaling."""

    code = "model_import_unconfirmed"


class PredictionsDifferError(ModelError):
    """The imported network answers otherwise than the file's."""

    code = "model_predictions_differ"


class ModelExistsError(ModelError):
    """There is such a pack or file already, and nobody asked to replace it."""

    code = "model_exists"
