"""What an upload can get wrong."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from hepamap.errors import HepamapError, OutputNotWritableError


class UploadError(HepamapError):
    """An upload cannot go on, or cannot be used."""

    code = "upload_error"


class UploadRequestError(UploadError):
    """A header of an upload is missing or says nothing that can be used."""

    code = "upload_request_invalid"


class UploadNotFoundError(UploadError):
    """There is no upload of that id."""

    code = "upload_not_found"


class UploadExpiredError(UploadError):
    """The upload was left too long."""

    code = "upload_expired"


class UploadLockedError(UploadError):
    """Another request is writing to the upload."""

    code = "upload_locked"


class UploadOffsetError(UploadError):
    """The client goes on from another place than the server has come to."""

    code = "upload_offset_mismatch"


class UploadIncompleteError(UploadError):
    """Something is asked of an upload that has not arrived whole."""

    code = "upload_incomplete"


class UploadStalledError(UploadError):
    """The client went silent in the middle of a request."""

    code = "upload_stalled"


class UploadChecksumError(UploadError):
    """What arrived is not what was sent."""

    code = "upload_checksum_mismatch"


class UploadQuotaError(OutputNotWritableError):
    """The folder of uploads is as full as it may become."""

    code = "upload_quota_exceeded"


class TusVersionError(UploadError):
    """The client speaks another version of tus."""

    code = "tus_version_unsupported"


class ArchiveError(UploadError):
    """An uploaded zip is no zip, or damaged."""

    code = "archive_invalid"


class ArchiveUnsafeError(ArchiveError):
    """An uploaded zip would write where it must not, or is made to overwhelm the server."""

    code = "archive_unsafe"


class ArchiveTooLargeError(ArchiveError):
    """An uploaded zip holds more than the server takes."""

    code = "archive_too_large"


class ArchiveSlideError(ArchiveError):
    """An uploaded zip does not hold exactly one slide."""

    code = "archive_slide_unclear"


CHECKSUM_MISMATCH = 460
"""The status that tus 1.0 defines for it; HTTP itself has none."""

UPLOAD_STATUS: Mapping[type[HepamapError], int] = MappingProxyType(
    {
        UploadError: HTTPStatus.BAD_REQUEST,
        UploadNotFoundError: HTTPStatus.NOT_FOUND,
        UploadExpiredError: HTTPStatus.GONE,
        UploadLockedError: HTTPStatus.LOCKED,
        UploadOffsetError: HTTPStatus.CONFLICT,
        UploadIncompleteError: HTTPStatus.CONFLICT,
        UploadStalledError: HTTPStatus.REQUEST_TIMEOUT,
        UploadChecksumError: CHECKSUM_MISMATCH,
        TusVersionError: HTTPStatus.PRECONDITION_FAILED,
        ArchiveError: HTTPStatus.UNPROCESSABLE_ENTITY,
        ArchiveTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    }
)
