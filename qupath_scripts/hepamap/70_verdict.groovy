/*
 * Verdict: a person accepts the contours, corrects a copy of them, or rejects them; the server keeps what was said.
 */
import qupath.lib.objects.PathObjects
import qupath.lib.objects.classes.PathClass

class Verdicts {
    static final String EDIT_KEY = 'hepamap.edit_of'
    static final String OWN_CLASS = 'Tumor'

    /** Unlocked copies of the contours, of class Tumor, which the person changes; the contours stay as they are. Returns how many. */
    static int startEdit(imageData) {
        String analysis = Thresholds.analysisOf(imageData)
        def hierarchy = imageData.getHierarchy()
        if (hierarchy.getAnnotationObjects().any { it.getMetadata()[EDIT_KEY] == analysis }) {
            throw new Trouble('There are editable copies of these contours already (class Tumor). Correct those, or delete them first.')
        }
        Contours.requireNoPreview(imageData)
        List ours = hierarchy.getAnnotationObjects().findAll { OpenImage.isOurs(it) }
        // Those of other models are not what the verdict is about. An image of an earlier client does not say whose its analysis is.
        def model = imageData.getProperty(Detection.MODEL)
        if (model != null) ours = ours.findAll { OpenImage.isOf(it, model) }
        List copies = ours.collect { contour ->
            def copy = PathObjects.createAnnotationObject(contour.getROI(), PathClass.fromString(OWN_CLASS))
            copy.setName("${OWN_CLASS} (${HepamapSettings.user()})".toString())
            copy.getMetadata().put(EDIT_KEY, analysis)
            copy
        }
        hierarchy.addObjects(copies)
        copies.size()
    }

    /** What a person calls tumour: all annotations of class Tumor, copies and own ones. */
    static List finalObjects(imageData) {
        imageData.getHierarchy().getAnnotationObjects().findAll {
            it.getPathClass()?.toString() == OWN_CLASS && it.getROI() != null && it.getROI().isArea() && it.getROI().getArea() > 0
        }
    }

    /** Send it; the same `id` again is the same verdict. */
    static Map outcome(imageData, Work work, String decision, String reason, String id) {
        try {
            String analysis = Thresholds.analysisOf(imageData)
            Contours.requireNoPreview(imageData)
            Map body = body(imageData, decision, reason)
            def place = new Place(imageData)  // now: the image may be closed while the server is asked
            def calls = new ServerCalls(work)
            calls.connect()
            work.tell('Sending the verdict')
            Map stored = calls.json('POST', "${Analysis.PATH}/${analysis}/verdicts", body, ['Idempotency-Key': id])
            noteWhereItIs(place, stored)
            return [title: decision, text: said(stored)]
        } catch (Cancelled cancelled) {
            return [title: 'cancelled', text: 'You cancelled. Whether the verdict arrived is not known; sending it again does no harm.']
        } catch (Trouble trouble) {
            return Detection.failure(trouble.message)
        }
    }

    static Map body(imageData, String decision, String reason) {
        Map body = [decision: decision, user: HepamapSettings.user()]
        def chosen = imageData.getProperty(Thresholds.CHOSEN)
        if (chosen != null) body.threshold = chosen as double
        if (reason?.trim()) body.reason = reason.trim()
        if (decision == 'rejected' && !body.reason) throw new Trouble('Say why the contours are rejected, then send it again.')
        if (decision == 'edited') {
            List shapes = finalObjects(imageData)
            body.geometry = [type: 'FeatureCollection', features: shapes.collect {
                [type: 'Feature', properties: [:], geometry: OpenImage.asGeoJson(it.getROI().getGeometry())]
            }]
        }
        body
    }

    private static void noteWhereItIs(Place place, Map stored) {
        try {
            place.change { note(it, stored) }
        } catch (ImageGone closed) {
            // the server has it, which counts
        }
    }

    private static void note(image, Map stored) {
        image.setProperty('hepamap.verdict', stored.decision)
        Map noted = [decision: stored.decision, verdict: stored.id, user: stored.user, analysis: stored.analysis].findAll { it.value != null }
        Steps.note(image, 'Verdict (hepamap)', noted, "hepamap: ${stored.decision} by ${stored.user} (verdict ${stored.id})")
    }

    static String said(Map stored) {
        String text = "The server has kept it: ${stored.decision}, by ${stored.user}."
        if (stored.area_mm2 != null) text += String.format(Locale.ROOT, ' Tumor area: %.2f mm².', stored.area_mm2 as double)
        if (stored.iou != null && stored.decision == 'edited') {
            text += String.format(Locale.ROOT, ' Overlap with the contours of the model (IoU): %.3f.', stored.iou as double)
        }
        text
    }
}
