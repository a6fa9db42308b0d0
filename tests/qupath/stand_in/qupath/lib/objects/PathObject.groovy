package qupath.lib.objects

import qupath.lib.objects.classes.PathClass

class PathObject {
    UUID id = UUID.randomUUID()
    String type = 'annotation'
    String name
    PathClass pathClass
    boolean locked = false
    Roi roi
    final Map<String, String> metadata = [:]
    final Map<String, Float> measurements = [:]

    static PathObject copyOf(PathObject other) {
        def copy = new PathObject(id: other.id, type: other.type, name: other.name, pathClass: other.pathClass, locked: other.locked, roi: other.roi)
        copy.metadata.putAll(other.metadata)
        copy.measurements.putAll(other.measurements)
        copy
    }

    UUID getID() { id }

    Roi getROI() { roi }

    boolean isAnnotation() { type == 'annotation' }

    boolean isLocked() { locked }

    PathClass getPathClass() { pathClass }
}
