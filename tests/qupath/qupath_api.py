"""The part of QuPath that the script may use, and all else that it calls.

Known from what was seen at work in genuine QuPath 0.5.1, 0.6.0 and 0.7.0, and from QuPath's sources as they are publicly
stored, which have a member both before and after 0.5. Not each was looked up at each release. Whoever adds one looks it up in
all three.
"""

from __future__ import annotations

import re

VERSIONS = ("0.5", "0.6", "0.7")
"""Those that the script is for."""


def _all(members: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(members.split(), VERSIONS)


QUPATH: dict[str, dict[str, tuple[str, ...]]] = {
    "qupath.fx.dialogs.Dialogs": _all("showConfirmDialog showErrorMessage showInfoNotification showPlainMessage"),
    "qupath.lib.common.GeneralTools": _all("toPath"),
    "qupath.lib.gui.QuPathGUI": _all("getAllViewers getImageData getStage installCommand installImageDataCommand refreshProject"),
    "qupath.lib.gui.scripting.QPEx": _all("getCurrentImageData getProject getQuPath"),
    "qupath.lib.gui.viewer.ImageInterpolation": _all("BILINEAR"),
    "qupath.lib.gui.viewer.QuPathViewer": _all(
        "getCustomPixelLayerOverlay getImageData getOverlayOptions "
        "imageDataProperty repaint resetCustomPixelLayerOverlay setCustomPixelLayerOverlay"
    ),
    "qupath.lib.gui.viewer.overlays.BufferedImageOverlay": _all("new setColorModel setInterpolation"),
    "qupath.lib.images.ImageData": _all("getHierarchy getHistoryWorkflow getProperty getServer removeProperty setProperty"),
    "qupath.lib.images.servers.ImageServer": _all(
        "close getBuilder getHeight getMetadata getPath getPixelCalibration getURIs getWidth nTimepoints nZSlices"
    ),
    "qupath.lib.images.servers.ImageServerMetadata": _all("getName"),
    "qupath.lib.images.servers.PixelCalibration": _all("getPixelHeightMicrons getPixelWidthMicrons"),
    "qupath.lib.images.servers.TransformingImageServer": _all(""),
    "qupath.lib.io.PathIO": _all("GeoJsonExportOptions exportObjectsAsGeoJSON readObjectsFromGeoJSON"),
    "qupath.lib.objects.PathObject": _all("getID getMetadata getPathClass getROI isAnnotation isLocked setName"),
    "qupath.lib.objects.PathObjects": _all("createAnnotationObject"),
    "qupath.lib.objects.classes.PathClass": _all("fromString"),
    "qupath.lib.objects.hierarchy.PathObjectHierarchy": _all("addObjects getAnnotationObjects getSelectionModel removeObjects"),
    "qupath.lib.objects.hierarchy.events.PathObjectSelectionModel": _all("getSelectedObjects"),
    "qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep": _all("new"),
    "qupath.lib.plugins.workflow.Workflow": _all("addStep"),
    "qupath.lib.projects.Project": _all("getEntry getImageList"),
    "qupath.lib.projects.ProjectImageEntry": _all("getImageName readImageData saveImageData"),
    "qupath.lib.regions.ImageRegion": _all("createInstance"),
    "qupath.lib.roi.interfaces.ROI": _all("getArea getBoundsHeight getBoundsWidth getBoundsX getBoundsY getGeometry isArea"),
}
"""Classes, their members (`new`: they are made), and the versions that have each."""

# Of Java, JavaFX, Groovy and JTS; where QuPath has a member of such a name too, it is not told apart.
OTHERS = frozenset(
    re.findall(
        r"\w+",
        """
    abs addAll addListener allOf any append await build call cancel capitalize closeEntry collect collectEntries
    collectMany connectTimeout consume contains containsAll containsKey copy count countDown createDirectories
    createFile createTempFile currentTimeMillis deleteIfExists drop dropRight each eachWithIndex encode encodeBase64
    endsWith equalsIgnoreCase every execute exists filter findAll findResult fire first firstValue forEach format
    generateCertificates getAbsolutePath getAcceptedIssuers getAcl getBytes getCause getChildren getClass getCoordinates
    getDataBuffer getDataType getDefaultAlgorithm getDefaultType getExteriorRing getFileAttributeView getFileName
    getGeometryN getGeometryType getHost getInstance getInteriorRingN getItems getLastModifiedTime getNameCount
    getNumBands getNumGeometries getNumInteriorRing getOwner getParent getPixelWriter getPosixFilePermissions
    getProperties getRaster getScheme getSimpleName getText getTrustManagers getUserData getValue getVariable getenv
    group hasVariable hashCode header headers init initOwner intValue is isAbsolute isDirectory isEmpty isFile isFinite
    isFxApplicationThread isInstance isRegularFile isSelected join last length list load max method min nanoTime
    newBuilder newInputStream newOutputStream newSetFromMap newSingleThreadScheduledExecutor noBody ofByteArray
    ofSeconds ofString orElse padRight parse parseText prettyPrint printStackTrace println put putNextEntry randomUUID
    readAllBytes readAllLines readFully readLines regionMatches relativize relocate removeListener replace replaceAll
    resolveSibling rgb round runLater schedule seek sendAsync setAcl setAlignment setCertificateEntry setColor setCrc
    setDaemon setDisable setEditable setHgap setId setLength setMajorTickUnit setMaxWidth setMethod setMinWidth
    setOnAction setOnCloseRequest setOnHidden setPadding setPermissions setPosixFilePermissions setPrefColumnCount
    setPrefRowCount setPrefSize setPrefWidth setPrincipal setProgress setPromptText setResizable setScene setSelected
    setShowTickLabels setShowTickMarks setSize setStrokeWidth setStyle setText setTime setTitle setType setUserData
    setValue setVgap setWrapText showDialog showOpenDialog shutdown sleep sort sslContext startsWith statusCode step
    substring sum synchronizedMap synchronizedSet takeRight timeout toFile toHexString toJson toLowerCase toMillis
    toString toURI tokenize trim update valueProperty version withCloseable withDefault withIndex
    """,
    )
)
