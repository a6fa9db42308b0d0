/*
 * Project: detection on many images of a project, one after the other; what is done is left alone, and a failure ends nothing.
 */
class ProjectRun {
    final Object project
    final Work work
    final List rows = []

    ProjectRun(project, Work work) {
        this.project = project
        this.work = work
    }

    /** The table of what came of each image. */
    Map outcome(List entries) {
        try {
            new ServerCalls(work).connect()  // one message, not one for each image
            entries.eachWithIndex { entry, int index ->
                def inner = new Work()
                inner.onTell = { String message, double share ->
                    if (work.cancelled) inner.cancelled = true
                    String where = "${index + 1} of ${entries.size()}: ${entry.getImageName()} · ${message}"
                    work.onTell.call(where, (index + Math.max(0.0d, share)) / entries.size())
                }
                work.goOn()
                rows << Summary.row(entry.getImageName(), one(entry, watched(inner)))
                work.goOn()
            }
        } catch (Cancelled cancelled) {
            return table('cancelled')
        } catch (Trouble trouble) {
            return Detection.failure(trouble.message)
        }
        table(rows.any { it.state == 'failed' } ? 'done, with failures' : 'done')
    }

    /** Work that ends when the whole is cancelled, also while it waits. */
    private Work watched(Work inner) {
        Windows.inBackground {
            while (!work.cancelled && !inner.cancelled && !inner.ended) Thread.sleep(50)
            if (work.cancelled) inner.cancelled = true
        }
        inner
    }

    private Map one(entry, Work inner) {
        def imageData = null, open = null
        try {
            open = Place.viewers().collect { it.getImageData() }.find { it != null && project.getEntry(it) == entry }
            imageData = open ?: Place.read(entry)
            def detection = new Detection(new Place(imageData, project, entry), inner, true)
            detection.skipDone = true
            return detection.outcome(Detection.question(imageData, 'slide'))
        } catch (Trouble trouble) {
            return Detection.failure(trouble.message)
        } catch (Exception error) {
            return Detection.failure(Reasons.unforeseen(error))
        } finally {
            inner.ended = true
            if (open == null && imageData != null) Place.close(imageData)
        }
    }

    private Map table(String title) { [title: title, rows: rows, text: Summary.text(rows)] }
}
