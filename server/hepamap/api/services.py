"""What the endpoints work with; made once by `create_app`, found on the app."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from hepamap.api.children import Children
from hepamap.api.slide_paths import SlideFolders
from hepamap.api.upload_room import UploadLimits
from hepamap.api.upload_store import UploadStore
from hepamap.api.waiting import JobWatch
from hepamap.delivery.signature import Secrets
from hepamap.delivery.targets import TargetPolicy
from hepamap.jobs.disposal import register_upload
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from hepamap.verdicts.store import VerdictStore
from hepamap.verdicts.thresholds import ThresholdStore


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, the open store, what looks at it for all who wait, and the child processes."""

    settings: Settings
    store: JobStore
    watch: JobWatch
    readers: Children
    """What looks at slides."""
    geometers: Children
    """What computes with outlines that people drew."""

    @property
    def slide_folders(self) -> SlideFolders:
        """Which files a client may name."""
        return SlideFolders(self.settings.slide_roots, self.settings.path_mappings)

    @property
    def callback_targets(self) -> TargetPolicy:
        """Which addresses may be called back."""
        return TargetPolicy(self.settings.callback_allow)

    @property
    def callback_secrets(self) -> Secrets:
        """What callbacks are signed with."""
        return Secrets(self.settings.callback_secrets_dir)

    @property
    def upload_limits(self) -> UploadLimits:
        """What the server takes in one request."""
        settings = self.settings
        return UploadLimits(
            settings.uploads_dir,
            settings.max_upload_bytes,
            settings.max_request_bytes,
            settings.min_free_bytes,
            settings.upload_quota_bytes,
        )

    @property
    def uploads(self) -> UploadStore:
        """The uploads that come in several requests."""
        return UploadStore(
            self.upload_limits,
            keep_for=timedelta(hours=self.settings.upload_expires_h),
            register=partial(register_upload, self.store),
        )

    @property
    def verdicts(self) -> VerdictStore:
        """What people said about results."""
        return VerdictStore(self.store.engine)

    @property
    def thresholds(self) -> ThresholdStore:
        """What thresholds people chose."""
        return ThresholdStore(self.store.engine)


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesOf = Annotated[Services, Depends(_services)]
