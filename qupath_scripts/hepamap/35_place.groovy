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
    /** QuPath gave it to a script of its own batch, and saves it when that ends. */
    final boolean savedByQuPath

    Place(imageData) {
        this.imageData = imageData
        project = QPEx.getProject()
        entry = project?.getEntry(imageData)
        savedByQuPath = !isShown()
    }

    /** An image of a project that nobody but us saves where no viewer shows it. */
    Place(imageData, project, entry) {
        this.imageData = imageData
        this.project = project
        this.entry = entry
        savedByQuPath = false
    }

    static List viewers() {
        def gui = QPEx.getQuPath()
        gui == null ? [] : new ArrayList(gui.getAllViewers())
    }

    static List viewersOf(imageData) { viewers().findAll { it.getImageData() != null && it.getImageData().is(imageData) } }

    /** The viewer that shows the image now; null: none does. */
    Object viewer() { viewersOf(imageData)[0] }

    boolean isShown() { viewer() != null }

    /** The same entry of the project opened anew. */
    Object openedAgain() {
        if (entry == null) return null
        viewers().collect { it.getImageData() }.find { it != null && project.getEntry(it) == entry }
    }

    boolean isGone() { !savedByQuPath && !isShown() && entry == null }

    /** Call `change` with the image as it is now, and save it where nobody has it open. One change at a time: what it finds stays so. */
    Object change(Closure change) {
        synchronized (Place) {
            if (isShown()) return change.call(imageData)
            def again = openedAgain()
            if (again != null) return change.call(again)
            if (savedByQuPath) return change.call(imageData)
            if (isGone()) throw new ImageGone()
            return changeStored(change)
        }
    }

    /** Read anew: what `imageData` was read from may be old, and a person may have saved annotations since. */
    private Object changeStored(Closure change) {
        def stored = read(entry)
        try {
            def result = change.call(stored)
            onDisk { entry.saveImageData(stored) }
            return result
        } finally {
            close(stored)
        }
    }

    static Object read(entry) { onDisk { entry.readImageData() } }

    private static Object onDisk(Closure access) {
        try {
            return access.call()
        } catch (Exception failed) {
            throw new Trouble("QuPath could not open or save this image (${failed.message ?: failed}).")
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
