package qupath.lib.gui.viewer

class OverlayOptions {
    boolean showPixelClassification = true
}
