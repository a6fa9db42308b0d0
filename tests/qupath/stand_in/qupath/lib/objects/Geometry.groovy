package qupath.lib.objects

/** The part of a JTS geometry that scripts walk through. */
class Geometry {
    private final List polygons

    Geometry(List polygons) { this.polygons = polygons }

    int getNumGeometries() { polygons.size() }

    Geometry getGeometryN(int n) { new Geometry([polygons[n]]) }

    String getGeometryType() { polygons.size() == 1 ? 'Polygon' : 'MultiPolygon' }

    Ring getExteriorRing() { new Ring(points: polygons[0][0]) }

    int getNumInteriorRing() { polygons[0].size() - 1 }

    Ring getInteriorRingN(int n) { new Ring(points: polygons[0][n + 1]) }

    static class Ring {
        List points

        Coordinate[] getCoordinates() { points.collect { new Coordinate(x: it[0] as double, y: it[1] as double) } as Coordinate[] }
    }

    static class Coordinate {
        public double x
        public double y
    }
}
