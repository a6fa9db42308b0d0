package qupath.lib.io

import groovy.json.JsonSlurper
import qupath.Desk
import qupath.lib.objects.PathObject
import qupath.lib.objects.Roi
import qupath.lib.objects.classes.PathClass

/** Reads GeoJSON with the strictness that was seen in QuPath 0.5 to 0.7: one bad feature, and nothing is read. */
class PathIO {
    enum GeoJsonExportOptions { EXCLUDE_MEASUREMENTS, PRETTY_JSON, FEATURE_COLLECTION }

    static void exportObjectsAsGeoJSON(File file, Collection<PathObject> objects, GeoJsonExportOptions... options) {
        def features = objects.collect {
            def rings = it.roi.polygons
            Desk.current.exported << rings
            [type: 'Feature', id: it.id.toString(), geometry: rings.size() == 1 ? [type: 'Polygon', coordinates: rings[0]] : [type: 'MultiPolygon',
             coordinates: rings], properties: [objectType: it.type, classification: [name: it.pathClass.toString(), color: [200, 0, 0]]]]
        }
        file.setText(groovy.json.JsonOutput.toJson(isCollection(options) ? [type: 'FeatureCollection', features: features] : features), 'UTF-8')
    }

    private static boolean isCollection(options) { GeoJsonExportOptions.FEATURE_COLLECTION in options }

    static List<PathObject> readObjectsFromGeoJSON(InputStream stream) throws IOException {
        def json = new JsonSlurper().parse(stream, 'UTF-8')
        if (json instanceof Map && json.type == 'FeatureCollection') return json.features.collect { object(it) }
        if (json instanceof List) return json.collect { object(it) }
        if (json instanceof Map && json.type == 'Feature') return [object(json)]
        []  // {"detail": …} and null read as no objects, without any complaint
    }

    private static PathObject object(Map feature) {
        check(feature.geometry != null, 'geometry is null')
        check(!feature.containsKey('properties') || feature.properties != null, 'properties are null')
        Map properties = feature.properties ?: [:]
        check(!properties.containsKey('name') || properties.name != null, 'name is null')
        def object = new PathObject(roi: shape(feature.geometry), type: properties.objectType ?: 'annotation', name: properties.name,
            pathClass: PathClass.fromString(className(properties.classification)), locked: properties.isLocked ?: false)
        Desk.current.imported << object.roi.polygons
        if (isUuid(feature.id)) object.id = UUID.fromString(feature.id)
        properties.measurements.each { name, value ->
            check(value == null || value instanceof Number, "measurement ${name} is no number")
            object.measurements[name] = value as Float
        }
        properties.metadata.each { name, value -> if (!(value instanceof Map || value instanceof List)) object.metadata[name] = value.toString() }
        object
    }

    private static String className(classification) {
        if (classification == null || classification instanceof String) return classification
        check(classification.name != null && (classification.containsKey('color') || classification.containsKey('colorRGB')), 'class without colour')
        classification.name
    }

    private static Roi shape(Map geometry) {
        Set unknown = geometry.keySet() - ['type', 'coordinates', 'plane', 'isEllipse']
        check(unknown.isEmpty(), "unknown ${unknown} in geometry")
        if (geometry.type == 'Polygon') return new Roi([rounded(geometry.coordinates)])
        check(geometry.type == 'MultiPolygon', "geometry ${geometry.type}")
        check(geometry.coordinates.size() > 1, 'MultiPolygon of one part')  // throws in 0.5
        new Roi(geometry.coordinates.collect { rounded(it) })
    }

    /** 0.6 and later round to a hundredth of a pixel. */
    private static List rounded(List rings) {
        rings.each { ring -> check(ring.size() >= 4 && ring[0] == ring[-1], 'ring is not closed') }
        rings.collect { ring -> ring.collect { point -> point.collect { Math.round((it as double) * 100) / 100.0d } } }
    }

    private static boolean isUuid(id) { id instanceof String && id ==~ /[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}/ }

    private static void check(boolean right, String wrong) { if (!right) throw new IllegalArgumentException(wrong) }
}
