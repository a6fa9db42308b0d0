/*
 * Place: where results belong. That is the image on which a run was started, whatever is open when they come: in its viewer, in its
 * entry of the project where it was closed meanwhile, and nowhere where it is gone.
 */
import qupath.lib.gui.scripting.QPEx

/** The image is closed and was in no project: there is nothing to draw on any more. */
class ImageGone extends Trouble {
    ImageGone() {
        super('The image was closed while hepamap worked on it, and it is in no project that could keep the contours. Nothing was drawn. ' +
            'Open it and run this again.')
    }
}

class Place {
    final Object imageData
    final Object project
    final Object entry
    final boolean shownAtFirst

    Place(imageData) {
        this.imageData = imageData
        project = QPEx.getProject()
        entry = project?.getEntry(imageData)
        shownAtFirst = isShown()
    }

    static List viewers() {
        def gui = QPEx.getQuPath()
        gui == null ? [] : new ArrayList(gui.getAllViewers())
    }

    /** The viewer that shows the image now; null: none does. */
    Object viewer() { viewers().find { it.getImageData() != null && it.getImageData().is(imageData) } }

    boolean isShown() { viewer() != null }

    /** The same entry of the project opened anew. */
    Object openedAgain() {
        if (entry == null) return null
        viewers().collect { it.getImageData() }.find { it != null && project.getEntry(it) == entry }
    }

    boolean isGone() { shownAtFirst && !isShown() && entry == null }

    /** Call `change` with the image as it is now, and save it where nobody has it open. */
    Object change(Closure change) {
        if (isShown()) return change.call(imageData)
        if (!shownAtFirst) return change.call(openedAgain() ?: imageData)
        if (isGone()) throw new ImageGone()
        def again = openedAgain()
        if (again != null) return change.call(again)
        def stored = entry.readImageData()
        try {
            def result = change.call(stored)
            entry.saveImageData(stored)
            return result
        } finally {
            close(stored)
        }
    }

    /** Let go of the file of an image that nobody looks at. */
    static void close(imageData) {
        try {
            imageData.getServer().close()
        } catch (Exception ignored) {
            // it is read no more
        }
    }

    String title() { OpenImage.title(imageData) }
}
