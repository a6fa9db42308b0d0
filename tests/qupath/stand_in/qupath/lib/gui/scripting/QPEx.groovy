package qupath.lib.gui.scripting

/** The static methods that every script sees. */
class QPEx {
    static volatile Object shown
    static volatile Object otherImage
    static volatile Object batchImage
    static volatile boolean hasWindow

    static Object getCurrentImageData() { batchImage == null ? shown : batchImage }

    static Object getQuPath() { hasWindow ? new Gui() : null }

    static class Gui {
        Object getImageData() { shown }

        Object getStage() { 'stage' }
    }
}
