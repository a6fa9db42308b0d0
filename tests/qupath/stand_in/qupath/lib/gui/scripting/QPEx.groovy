package qupath.lib.gui.scripting

/** The static methods that every script sees. */
class QPEx {
    static volatile Object gui
    /** The image of a batch is that of the thread that runs the script. */
    static final ThreadLocal batchImage = new ThreadLocal()
    static volatile Object project

    static Object getCurrentImageData() { batchImage.get() ?: gui?.getImageData() }

    static Object getQuPath() { gui }

    static Object getProject() { project }
}
