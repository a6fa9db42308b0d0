package qupath.lib.objects

/** A shape: polygons as in GeoJSON (rings of x, y), or a line. */
class Roi {
    final List polygons
    final boolean area

    Roi(List polygons, boolean area = true) {
        this.polygons = polygons
        this.area = area
    }

    boolean isArea() { area }

    double getArea() { area ? polygons.sum { rings -> ringArea(rings[0]) - (rings.drop(1).sum { ringArea(it) } ?: 0) } : 0 }

    double getBoundsX() { xs().min() }

    double getBoundsY() { ys().min() }

    double getBoundsWidth() { xs().max() - xs().min() }

    double getBoundsHeight() { ys().max() - ys().min() }

    Geometry getGeometry() { new Geometry(polygons) }

    private List<Double> xs() { polygons.collectMany { it[0].collect { point -> point[0] as double } } }

    private List<Double> ys() { polygons.collectMany { it[0].collect { point -> point[1] as double } } }

    private static double ringArea(List ring) {
        double twice = 0
        for (int i = 0; i + 1 < ring.size(); i++) twice += ring[i][0] * ring[i + 1][1] - ring[i + 1][0] * ring[i][1]
        Math.abs(twice) / 2
    }
}
