/*
 * Map: the probability map of an analysis, one byte per cell, laid over the slide where its cells are.
 */
import java.awt.image.BufferedImage
import java.awt.image.DataBuffer
import javafx.beans.value.ChangeListener
import javax.imageio.ImageIO
import qupath.lib.gui.viewer.ImageInterpolation
import qupath.lib.gui.viewer.overlays.BufferedImageOverlay
import qupath.lib.regions.ImageRegion

class ProbabilityMap {
    final String analysis
    /** Where it lies, in px of the image; model, threshold, operating points. */
    final Map facts
    final BufferedImage image

    ProbabilityMap(String analysis, Map facts, BufferedImage image) {
        this.analysis = analysis
        this.facts = facts
        this.image = image
    }

    static ProbabilityMap fetch(ServerCalls calls, String analysis) {
        String path = "${Analysis.PATH}/${analysis}/probability-map"
        Map facts = calls.json('GET', "${path}?format=json&frame=client")
        BufferedImage image = ImageIO.read(new ByteArrayInputStream(calls.bytes("${path}?format=index8")))
        def raster = image?.getRaster()
        boolean right = raster?.getNumBands() == 1 && raster.getDataBuffer().getDataType() == DataBuffer.TYPE_BYTE &&
            image.getWidth() == facts.columns && image.getHeight() == facts.rows
        if (!right) throw new Trouble("The server at ${calls.server} sent something else than a probability map. Try again; if it happens again, " +
            'tell whoever runs the server.')
        new ProbabilityMap(analysis, facts, image)
    }

    /** The rectangle of all cells in whole pixels, less than one pixel off. */
    ImageRegion region() {
        int x = Math.round(facts.x as double), y = Math.round(facts.y as double)
        int right = Math.round((facts.x as double) + (facts.width as double)), bottom = Math.round((facts.y as double) + (facts.height as double))
        ImageRegion.createInstance(x, y, right - x, bottom - y, 0, 0)
    }
}

/** A map that lies on the image of a viewer, until it is taken off or the viewer shows another image. */
class MapOverlay {
    static final Map SHOWN = Collections.synchronizedMap(new WeakHashMap())

    final Object viewer
    final ProbabilityMap map
    final BufferedImageOverlay overlay
    Closure onRemoved = { }
    double threshold = 0.0d
    private ChangeListener watch

    MapOverlay(viewer, ProbabilityMap map) {
        this.viewer = viewer
        this.map = map
        overlay = new BufferedImageOverlay(viewer.getOverlayOptions(), map.region(), map.image)
        try {
            overlay.setInterpolation(ImageInterpolation.BILINEAR)
        } catch (MissingMethodException rough) {
            // cells have edges then
        }
    }

    static MapOverlay on(viewer) { viewer == null ? null : SHOWN[viewer] }

    /** An image that was analysed anew has another map. */
    static void removeFrom(imageData) {
        Windows.onFx { Place.viewersOf(imageData).collect { on(it) }.findAll { it != null }.each { it.remove() } }
    }

    static double opacity() { (HepamapSettings.get('opacity') ?: 0.6) as double }

    void show(double threshold) {
        on(viewer)?.remove()
        colour(threshold)
        viewer.setCustomPixelLayerOverlay(overlay)
        SHOWN[viewer] = this
        watch = { observed, before, now -> remove() } as ChangeListener
        viewer.imageDataProperty().addListener(watch)
    }

    /** Only the table of colours changes, so this is quick for any map. */
    void colour(double threshold) {
        this.threshold = threshold
        overlay.setColorModel(Colours.model(threshold, opacity()))
        viewer.repaint()
    }

    void remove() {
        if (watch != null) viewer.imageDataProperty().removeListener(watch)
        watch = null
        if (SHOWN[viewer].is(this)) SHOWN.remove(viewer)
        if (viewer.getCustomPixelLayerOverlay().is(overlay)) viewer.resetCustomPixelLayerOverlay()
        viewer.repaint()
        onRemoved.call()
    }
}
