/*
 * Contours: read what the server sends, check it, and put it in the place of what the same model drew before. What a person drew,
 * unlocked or gave another class is never touched, and nothing is removed before the new contours are there and were checked.
 */
import groovy.json.JsonOutput
import qupath.lib.io.PathIO

class Contours {
    /** On contours of a preview, and on the image: a preview without contours hides those before it, too. */
    static final String PREVIEW_KEY = 'hepamap.preview'
    // Cells at the edge of a slide reach over it by less than one cell.
    static final double OVERHANG_PX = 1024

    final Map collection
    final String model

    Contours(byte[] body, String server, boolean preview = false) {
        def read = ServerCalls.parsed(body)
        if (!(read instanceof Map) || read.type != 'FeatureCollection' || !(read.features instanceof List)) {
            throw new Trouble("The server at ${server} sent something else than contours. Nothing was changed. Run this again; if it " +
                'happens again, tell whoever runs the server.')
        }
        collection = read
        def inFeatures = read.features.findResult { it.properties?.metadata?.get(OpenImage.MODEL_KEY) }
        model = OpenImage.nameOf(read.properties?.provenance?.model?.id ?: inFeatures ?: '')
        if (preview) markAsPreview()
    }

    private void markAsPreview() {
        collection.features.each { feature ->
            if (!(feature.properties instanceof Map)) return
            feature.properties.name = "${feature.properties.name ?: OpenImage.TUMOUR_CLASS}, preview".toString()
            feature.properties.metadata = (feature.properties.metadata ?: [:]) + [(PREVIEW_KEY): 'coarse pass']
        }
    }

    static boolean isPreview(object) { OpenImage.isOurs(object) && object.getMetadata().containsKey(PREVIEW_KEY) }

    static boolean previewOn(imageData) {
        imageData.getProperty(PREVIEW_KEY) != null || imageData.getHierarchy().getAnnotationObjects().any { isPreview(it) }
    }

    /** What a person says, or chooses, is about a result. */
    static void requireNoPreview(imageData) {
        if (previewOn(imageData)) {
            throw new Trouble('What is on the image is a preview. Wait for the result, or cancel it, then try again. If none is under way, ' +
                'run hepamap > Detect tumor again.')
        }
    }

    /** Draw on the image; returns what was drawn and what it replaced. */
    Map drawOn(imageData) {
        def hierarchy = imageData.getHierarchy()
        List earlier = hierarchy.getAnnotationObjects().findAll { OpenImage.isOf(it, model) }
        List drawn = objects(hierarchy, earlier)
        requireInside(drawn, imageData.getServer())
        hierarchy.removeObjects(earlier, true)  // true: what a person drew inside them stays
        hierarchy.addObjects(drawn)
        [drawn: drawn, replaced: earlier]
    }

    /** Read the contours; an id that another object of the image has already (a contour that a person unlocked) is left out. */
    List objects(hierarchy, List earlier) {
        Set taken = hierarchy.getAnnotationObjects().findAll { !(it in earlier) }.collect { it.getID().toString() } as Set
        collection.features.each { if (it instanceof Map && it.id in taken) it.remove('id') }
        try {
            byte[] readable = JsonOutput.toJson(collection).getBytes('UTF-8')
            return new ArrayList(PathIO.readObjectsFromGeoJSON(new ByteArrayInputStream(readable)))
        } catch (Exception unreadable) {
            throw new Trouble("QuPath could not read the contours (${unreadable.message}). Nothing was changed. Please report it with " +
                'your versions of QuPath and hepamap.')
        }
    }

    static void requireInside(List objects, server) {
        int width = server.getWidth(), height = server.getHeight()
        boolean inside = objects.every {
            def roi = it.getROI()
            double left = roi.getBoundsX(), top = roi.getBoundsY()
            double right = left + roi.getBoundsWidth(), bottom = top + roi.getBoundsHeight()
            right > 0 && bottom > 0 && left < width && top < height && left >= -OVERHANG_PX && top >= -OVERHANG_PX &&
                right <= width + OVERHANG_PX && bottom <= height + OVERHANG_PX
        }
        if (!inside) {
            throw new Trouble('The contours do not lie on this image, so they were not drawn. Nothing was changed. Check that the server ' +
                'reads the same slide; if it does, please report it.')
        }
    }
}
