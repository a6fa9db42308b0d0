package qupath.lib.objects

import qupath.lib.objects.classes.PathClass

class PathObjects {
    static PathObject createAnnotationObject(Roi roi, PathClass pathClass) { new PathObject(roi: roi, pathClass: pathClass) }
}
