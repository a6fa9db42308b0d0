package qupath.lib.gui.viewer

import javafx.beans.property.ReadOnlyObjectProperty
import javafx.beans.property.SimpleObjectProperty
import qupath.Desk

class QuPathViewer {
    private final SimpleObjectProperty shown = new SimpleObjectProperty()
    private Object overlay = null
    int repaints = 0
    final OverlayOptions overlayOptions = new OverlayOptions()

    Object getImageData() { shown.get() }

    void setImageData(image) { shown.set(image) }

    ReadOnlyObjectProperty imageDataProperty() { shown }

    OverlayOptions getOverlayOptions() { overlayOptions }

    Object getCustomPixelLayerOverlay() { overlay }

    void setCustomPixelLayerOverlay(other) {
        Desk.require()
        overlay = other
    }

    void resetCustomPixelLayerOverlay() { setCustomPixelLayerOverlay(null) }

    void repaint() { repaints++ }
}
