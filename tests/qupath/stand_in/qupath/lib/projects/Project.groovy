package qupath.lib.projects

/** A project whose images are kept in memory; what is read from it is a copy each time, as from files. */
class Project {
    private final List<ProjectImageEntry> entries = []

    void add(image) { entries << new ProjectImageEntry(image) }

    List<ProjectImageEntry> getImageList() { entries.asImmutable() }

    ProjectImageEntry getEntry(imageData) { entries.find { it.isOf(imageData) } }
}
