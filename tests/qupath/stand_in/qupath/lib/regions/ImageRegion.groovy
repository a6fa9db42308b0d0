package qupath.lib.regions

import groovy.transform.Immutable

/** A rectangle of whole pixels, in one plane. */
@Immutable
class ImageRegion {
    int x, y, width, height, z, t

    static ImageRegion createInstance(int x, int y, int width, int height, int z, int t) { new ImageRegion(x, y, width, height, z, t) }
}
