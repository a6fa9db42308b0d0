package qupath.lib.objects.hierarchy

/** Objects of one image, in a flat list. The same id twice is not prevented, nor are objects outside the image. */
class PathObjectHierarchy {
    final List objects = [].asSynchronized()
    final Selection selectionModel = new Selection()

    Collection getAnnotationObjects() { new ArrayList(objects).findAll { it.isAnnotation() } }

    void addObjects(Collection added) { objects.addAll(added) }

    void removeObjects(Collection removed, boolean keepChildren) {
        if (!keepChildren) throw new IllegalStateException('what lies inside would be lost')
        objects.removeAll { object -> removed.any { it.is(object) } }
    }

    static class Selection {
        final Set selectedObjects = new LinkedHashSet()
    }
}
