/*
 * Batch: no windows; progress and summary are printed, a slide that fails does not end the batch, and at its end there is a table. What
 * fails is thrown for one image alone: QuPath saves an image after its script, and does not where the script ended with an error.
 */
import qupath.lib.gui.scripting.QPEx

class Batch {
    static final String ROWS = 'hepamap.batch.rows'
    static final String UNSAVED = 'This image is in no project, so QuPath will keep nothing of this. Put it into one and run the script with ' +
        '--project and --save; or let “hepamap detect” write the contours into a file.'

    final boolean many
    final boolean last
    final boolean first

    Batch(Binding binding) {
        int size = (Hepamap.told(binding, 'qupath.script.batchSize') ?: 1) as int
        many = size > 1
        first = ((Hepamap.told(binding, 'qupath.script.batchIndex') ?: 0) as int) <= 0
        last = Hepamap.told(binding, 'qupath.script.batchLast') != false
    }

    void detect(imageData) {
        Map outcome
        try {
            Map question = Detection.question(imageData, HepamapSettings.where())
            def detection = new Detection(new Place(imageData), printing(new Work()), true)
            detection.skipDone = many
            outcome = detection.outcome(question)
        } catch (Trouble trouble) {
            outcome = Detection.failure(trouble.message)
        }
        if (!many) {
            print(outcome)
            if (QPEx.getProject() == null) Hepamap.say("hepamap: ${UNSAVED}")
            return
        }
        // Each image of a batch compiles the script anew, so that no field of it lasts; the properties of the program do.
        List rows = first ? [] : (List) (System.getProperties().get(ROWS) ?: [])
        rows << Summary.row(imageData == null ? '?' : OpenImage.title(imageData), outcome)
        System.getProperties().put(ROWS, rows)
        Hepamap.say("hepamap: ${outcome.title}. ${outcome.text}")
        if (!last) return
        System.getProperties().remove(ROWS)
        Hepamap.say(Summary.text(rows))
        int failed = rows.count { it.state == 'failed' }
        if (failed) Hepamap.say("hepamap: ${failed} of ${rows.size()} images failed; the table above says why.")
    }

    static void print(Map outcome) {
        if (outcome.failed) throw new Trouble("hepamap: ${outcome.text}")
        Hepamap.say("hepamap: ${outcome.title}. ${outcome.text}")
    }

    static Work printing(Work work) {
        String printed = ''
        work.onTell = { String message, double share ->
            String stage = message.replaceAll(/[ ·:].*/, '')
            String step = stage + (share < 0 ? '' : (int) (share * 10))
            if (step != printed) Hepamap.say("hepamap: ${message}")
            printed = step
        }
        work
    }
}

/** What came of each image. */
class Summary {
    static Map row(String image, Map outcome) {
        String state = outcome.failed ? 'failed' : outcome.cancelled ? 'cancelled' : outcome.skipped ? 'done before' :
            outcome.alarming ? 'NOT EVALUABLE' : 'done'
        [image: image, state: state, regions: outcome.regions, tumour_mm2: outcome.tumour_mm2, tissue_mm2: outcome.tissue_mm2,
         note: (outcome.failed ? outcome.text : outcome.warnings ?: '').toString().replaceAll(/\s+/, ' ').trim()]
    }

    static String share(Map row) {
        if (!row.tissue_mm2 || row.tumour_mm2 == null) return ''
        String.format(Locale.ROOT, '%.1f', 100 * (row.tumour_mm2 as double) / (row.tissue_mm2 as double))
    }

    static String number(value) { value == null ? '' : String.format(Locale.ROOT, '%.2f', value as double) }

    static List<String> cells(Map row) {
        [row.image, row.state, row.regions == null ? '' : row.regions.toString(), number(row.tumour_mm2), share(row), row.note]
    }

    static final List HEADS = ['image', 'state', 'regions', 'tumor mm²', '% of tissue', 'note']

    static String text(List rows) {
        List lines = [HEADS] + rows.collect { cells(it) }
        List widths = (0..<HEADS.size()).collect { column -> lines.collect { it[column].size() }.max() }
        lines.collect { line -> line.withIndex().collect { cell, column -> cell.padRight(widths[column]) }.join('  ').trim() }.join('\n')
    }
}
