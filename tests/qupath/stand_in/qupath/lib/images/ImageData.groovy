package qupath.lib.images

import qupath.lib.objects.hierarchy.PathObjectHierarchy

class ImageData {
    Object server
    final PathObjectHierarchy hierarchy = new PathObjectHierarchy()
    final Workflow historyWorkflow = new Workflow()

    static class Workflow {
        final List steps = []

        void addStep(step) { steps << step }
    }
}
