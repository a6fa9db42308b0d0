package qupath.lib.projects

import java.lang.ref.WeakReference
import qupath.lib.images.ImageData

/** One image of a project. */
class ProjectImageEntry {
    final String imageName
    private ImageData stored
    private final List<WeakReference> given = []
    int saves = 0
    boolean damaged = false

    ProjectImageEntry(ImageData image) {
        imageName = image.getServer().getMetadata().getName()
        stored = image.copy()
    }

    String getImageName() { imageName }

    String getID() { Integer.toHexString(System.identityHashCode(this)) }

    ImageData readImageData() {
        if (damaged) throw new IOException('the data file is damaged')
        def copy = stored.copy()
        given << new WeakReference(copy)
        copy
    }

    void saveImageData(ImageData image) {
        stored = image.copy()
        saves++
    }

    boolean isOf(imageData) { given.any { it.get().is(imageData) } }

    ImageData peek() { stored }
}
