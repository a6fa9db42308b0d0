/*
 * Threshold: while it moves only colours change; when it rests, contours at it come from the server and replace those on the image.
 */
import java.util.concurrent.Executors
import java.util.concurrent.ScheduledExecutorService
import java.util.concurrent.ScheduledFuture
import java.util.concurrent.ThreadFactory
import java.util.concurrent.TimeUnit

class Thresholds {
    static final String CHOSEN = 'hepamap.threshold'

    static String analysisOf(imageData) {
        def analysis = imageData?.getProperty(Detection.ANALYSIS)
        if (analysis == null) throw new Trouble('hepamap has not looked at this image yet. Run hepamap > Detect tumor first.')
        analysis
    }

    static Contours contoursAt(ServerCalls calls, String analysis, double threshold) {
        new Contours(calls.bytes("${Analysis.PATH}/${analysis}/contours?threshold=${threshold}"), calls.server)
    }

    /** What came of an analysis belongs to an image for as long as that has no other one, nor a preview of it. */
    static void requireCurrent(imageData, String analysis) {
        if (imageData.getProperty(Detection.ANALYSIS) != analysis) {
            throw new Trouble('The image has the contours of another analysis by now, and they were left as they are. To move ' +
                'their threshold, open hepamap > Adjust threshold… again.')
        }
        Contours.requireNoPreview(imageData)
    }

    static Map draw(Place place, String analysis, Contours contours) {
        (Map) place.change { image ->
            requireCurrent(image, analysis)
            contours.drawOn(image)
        }
    }

    static double sensible(double threshold) { Math.max(0.001d, Math.min(0.999d, Math.round(threshold * 1000) / 1000.0d)) }

    /** Tell the server which threshold a person chose, and note it in the image. */
    static void keep(ServerCalls calls, Place place, String analysis, double threshold) {
        calls.json('PUT', "${Analysis.PATH}/${analysis}/threshold", [threshold: threshold, user: HepamapSettings.user()])
        place.change { image ->
            requireCurrent(image, analysis)
            image.setProperty(CHOSEN, threshold.toString())
            Steps.add(image, 'Threshold (hepamap)', [threshold: threshold.toString(), analysis: analysis],
                "hepamap drew its contours at the threshold ${threshold}", 'threshold', [threshold: threshold])
        }
    }

    /** Draw at a threshold and keep it, without any window. */
    static Map outcome(imageData, Work work, double given) {
        try {
            double threshold = sensible(given)
            String analysis = analysisOf(imageData)
            def calls = new ServerCalls(work)
            def place = new Place(imageData)
            calls.connect()
            def contours = contoursAt(calls, analysis, threshold)
            Map change = draw(place, analysis, contours)
            keep(calls, place, analysis, threshold)
            return [title: 'done', text: "Threshold ${threshold}: ${change.drawn.size()} tumor regions (${contours.model})."]
        } catch (Cancelled cancelled) {
            return [title: 'cancelled', text: 'You cancelled.']
        } catch (Trouble trouble) {
            return Detection.failure(trouble.message)
        }
    }
}

/** One person's moving of the threshold on one image; knows no windows. */
class ThresholdSession {
    static long REST_MS = 100
    static long AWAIT_MS = 200

    final Place place
    final ServerCalls calls
    final ProbabilityMap map
    final MapOverlay overlay
    final double first
    volatile double threshold
    /** Called with a sentence, from any thread. */
    volatile Closure tell = { String text -> }
    private final ScheduledExecutorService worker
    private ScheduledFuture waiting
    private volatile int moves = 0
    private List before = null

    ThresholdSession(Place place, ServerCalls calls, ProbabilityMap map, MapOverlay overlay) {
        this.place = place
        this.calls = calls
        this.map = map
        this.overlay = overlay
        first = threshold = map.facts.threshold as double
        worker = Executors.newSingleThreadScheduledExecutor({ Runnable work ->
            def thread = new Thread(work, 'hepamap')
            thread.setDaemon(true)
            thread
        } as ThreadFactory)
    }

    /** On the JavaFX thread, as often as the slider moves. */
    void moveTo(double wanted) {
        threshold = Thresholds.sensible(wanted)
        overlay.colour(threshold)
        int number = ++moves
        long movedAt = System.nanoTime()
        waiting?.cancel(false)
        waiting = worker.schedule({ settle(number, threshold, movedAt) } as Runnable, REST_MS, TimeUnit.MILLISECONDS)
    }

    private void settle(int number, double wanted, long movedAt) {
        try {
            def contours = Thresholds.contoursAt(calls, map.analysis, wanted)
            if (number != moves) return  // moved on meanwhile
            int regions = draw(contours)
            long milliseconds = (long) ((System.nanoTime() - movedAt) / 1_000_000)
            tell.call(said(contours, regions) + " (${milliseconds} ms)")
        } catch (Trouble trouble) {
            if (number == moves) tell.call(trouble.message)
        } catch (Throwable error) {
            if (number == moves) tell.call(Reasons.unforeseen(error))
        }
    }

    private int draw(Contours contours) {
        Map change = Thresholds.draw(place, map.analysis, contours)
        if (before == null) before = change.replaced
        change.drawn.size()
    }

    private static String said(Contours contours, int regions) {
        def facts = contours.collection.properties
        String text = regions == 1 ? '1 tumor region' : "${regions} tumor regions"
        if (!facts?.tissue_area_mm2 || facts.tumour_area_mm2 == null) return text
        double tumour = facts.tumour_area_mm2, tissue = facts.tissue_area_mm2
        text + String.format(Locale.ROOT, ', %.2f mm², %.1f %% of the tissue', tumour, 100 * tumour / tissue)
    }

    /** The person wants this threshold: it is drawn, and `then` is called with null, or with what went wrong. */
    void keep(double wanted, Closure then) {
        moves++
        worker.execute {
            String wrong = null
            try {
                draw(Thresholds.contoursAt(calls, map.analysis, wanted))
                Thresholds.keep(calls, place, map.analysis, wanted)
            } catch (Trouble trouble) {
                wrong = trouble.message
            } catch (Throwable error) {
                wrong = Reasons.unforeseen(error)
            }
            then.call(wrong)
        }
    }

    /** Back to the contours that were there at first. */
    void back() {
        moves++
        overlay.colour(first)
        worker.execute {
            if (before == null) return
            awaitResult()
            String model = OpenImage.nameOf(map.facts.model.id)
            try {
                place.change { image ->
                    Thresholds.requireCurrent(image, map.analysis)
                    def hierarchy = image.getHierarchy()
                    hierarchy.removeObjects(hierarchy.getAnnotationObjects().findAll { OpenImage.isOf(it, model) }, true)
                    hierarchy.addObjects(before)
                }
            } catch (Trouble gone) {
                // so are the contours, or others are in their place
            }
        }
    }

    /** A preview hides the contours and puts them back where no result follows it: until then, nobody can replace them. */
    private void awaitResult() {
        while (place.isShown() && Contours.previewOn(place.imageData)) Thread.sleep(AWAIT_MS)
    }

    /** Ends the thread, after what was asked before. */
    void close() { worker.shutdown() }
}
