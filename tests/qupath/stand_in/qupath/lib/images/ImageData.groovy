package qupath.lib.images

import qupath.lib.objects.PathObject
import qupath.lib.objects.hierarchy.PathObjectHierarchy

/** An image with its objects. Its getProperty and setProperty are those of QuPath's (Java) class, not Groovy's: use the getters. */
class ImageData {
    private final Object server
    private final PathObjectHierarchy hierarchy = new PathObjectHierarchy()
    private final Workflow workflow = new Workflow()
    private final Map<String, Object> properties = [:]

    ImageData(server) { this.@server = server }

    Object getServer() { this.@server }

    PathObjectHierarchy getHierarchy() { this.@hierarchy }

    Workflow getHistoryWorkflow() { this.@workflow }

    Object getProperty(String name) { this.@properties.get(name) }

    void setProperty(String name, Object value) { this.@properties.put(name, value) }

    Object removeProperty(String name) { this.@properties.remove(name) }

    Map<String, Object> allProperties() { this.@properties }

    ImageData copy() {
        def other = new ImageData(this.@server)
        this.@hierarchy.getObjects().each { other.getHierarchy().getObjects() << PathObject.copyOf(it) }
        this.@properties.each { other.allProperties().put(it.key, it.value) }
        this.@workflow.steps.each { other.getHistoryWorkflow().addStep(it) }
        other
    }

    static class Workflow {
        final List steps = []

        void addStep(step) { steps << step }
    }
}
