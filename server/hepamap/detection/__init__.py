"""From a request to a result folder: what every way in calls, so that all give the same numbers."""

from hepamap.detection.checking import DEFAULT_MIN_AREA_UM2, CheckedRequest, check_request, frame_of
from hepamap.detection.detector import Detector
from hepamap.detection.request import ANALYSIS, ClientView, DetectionRequest
from hepamap.detection.run import DetectionSummary, detect

__all__ = [
    "ANALYSIS",
    "DEFAULT_MIN_AREA_UM2",
    "CheckedRequest",
    "ClientView",
    "DetectionRequest",
    "DetectionSummary",
    "Detector",
    "check_request",
    "detect",
    "frame_of",
]
