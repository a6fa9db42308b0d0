package qupath.lib.objects

class PathObject {
    UUID id = UUID.randomUUID()
    String type = 'annotation'
    String name
    String classText
    boolean locked = false
    Roi roi
    final Map<String, String> metadata = [:]
    final Map<String, Float> measurements = [:]

    UUID getID() { id }

    Roi getROI() { roi }

    boolean isAnnotation() { type == 'annotation' }

    boolean isLocked() { locked }

    PathClass getPathClass() { classText == null ? null : new PathClass(text: classText) }

    static class PathClass {
        String text

        @Override
        String toString() { text }
    }
}
