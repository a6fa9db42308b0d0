/*
 * Image: what QuPath has open, whether contours could be placed on it, and which region is meant.
 */
import qupath.lib.common.GeneralTools
import qupath.lib.images.servers.TransformingImageServer

class OpenImage {
    static final String TUMOUR_CLASS = 'Tumor (AI)'
    static final String MODEL_KEY = 'hepamap.model'

    /** The local file of the image. */
    static String localPath(imageData) {
        if (imageData == null) throw new Trouble('No image is open. Open a slide, then run this again.')
        def server = imageData.getServer()
        def uris = server.getURIs()
        if (uris.size() != 1 || !'file'.equalsIgnoreCase(uris.first().getScheme())) {
            throw new Trouble("This image is not one file on a disk (${uris.join(', ') ?: server.getPath()}). hepamap reads slides from " +
                'files: open the slide by its file, then run this again.')
        }
        requirePlain(server)
        GeneralTools.toPath(uris.first()).toString()
    }

    static void requirePlain(server) {
        String builder = server.getBuilder()?.getClass()?.getSimpleName()
        if (server instanceof TransformingImageServer || !(builder in [null, 'DefaultImageServerBuilder'])) {
            throw new Trouble('This image is a rotated, cropped or otherwise changed view of its file, so contours would land in the ' +
                'wrong place. Open the original slide, then run this again.')
        }
        def series = server.getPath() =~ /--series\W+([1-9]\d*)/
        if (series.find()) {
            throw new Trouble("This image is one of several in its file (series ${series.group(1)}). hepamap reads the main image of a " +
                'slide: open that one, then run this again.')
        }
        if (server.nZSlices() > 1 || server.nTimepoints() > 1) {
            throw new Trouble("This image has ${server.nZSlices()} focus planes and ${server.nTimepoints()} time points. hepamap reads " +
                'slides with one of each: open such a slide, then run this again.')
        }
    }

    static Map clientView(server) {
        Map view = [width: server.getWidth(), height: server.getHeight()]
        double width = server.getPixelCalibration().getPixelWidthMicrons()
        double height = server.getPixelCalibration().getPixelHeightMicrons()
        if (Double.isFinite(width) && Double.isFinite(height)) view += [pixel_width_um: width, pixel_height_um: height]
        view
    }

    /** The selected annotations as GeoJSON; null: the whole slide. */
    static Map selectedRegion(imageData) {
        // Contours of ours are no region: who looks at one and starts again means the slide.
        def selected = imageData.getHierarchy().getSelectionModel().getSelectedObjects().findAll { it.isAnnotation() && !isOurs(it) }
        if (selected.isEmpty()) return null
        def shapes = selected.collect { it.getROI() }.findAll { it != null && it.isArea() && it.getArea() > 0 }
        if (shapes.isEmpty()) {
            throw new Trouble('The selected annotation has no area (a line, or points). Select a closed region, or nothing for the ' +
                'whole slide, then run this again.')
        }
        [type: 'FeatureCollection', features: shapes.collect { [type: 'Feature', properties: [:], geometry: asGeoJson(it.getGeometry())] }]
    }

    static Map asGeoJson(geometry) {
        List polygons = (0..<geometry.getNumGeometries()).collect { geometry.getGeometryN(it) }
            .findAll { it.getGeometryType() == 'Polygon' }
            .collect { polygon ->
                def holes = (0..<polygon.getNumInteriorRing()).collect { polygon.getInteriorRingN(it) }
                ([polygon.getExteriorRing()] + holes).collect { ring -> ring.getCoordinates().collect { [it.x, it.y] } }
            }
        polygons.size() == 1 ? [type: 'Polygon', coordinates: polygons[0]] : [type: 'MultiPolygon', coordinates: polygons]
    }

    /** Of a region in GeoJSON, px². */
    static double areaOf(Map region) {
        region.features.collectMany { it.geometry.type == 'Polygon' ? [it.geometry.coordinates] : it.geometry.coordinates }.collect { rings ->
            ringArea(rings[0]) - (rings.drop(1).collect { ringArea(it) }.sum() ?: 0.0d)
        }.sum() ?: 0.0d
    }

    private static double ringArea(List ring) {
        double twice = 0.0d
        for (int i = 0; i + 1 < ring.size(); i++) {
            twice += (ring[i][0] as double) * (ring[i + 1][1] as double) - (ring[i + 1][0] as double) * (ring[i][1] as double)
        }
        Math.abs(twice) / 2
    }

    /** A contour that we drew and that nobody has made theirs: locked, of our class, with our metadata. */
    static boolean isOurs(object) {
        object.isAnnotation() && object.isLocked() && object.getPathClass()?.toString() == TUMOUR_CLASS &&
            object.getMetadata().containsKey(MODEL_KEY)
    }

    static boolean isOf(object, String model) { isOurs(object) && nameOf(object.getMetadata()[MODEL_KEY]) == model }

    /** hcc-10x of hcc-10x@1.0.0. */
    static String nameOf(model) { model.toString().trim().replaceAll('@.*', '') }

    static String title(imageData) { imageData.getServer().getMetadata().getName() }
}
