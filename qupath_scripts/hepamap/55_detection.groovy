/*
 * Detection: find the slide on the server, ask a coarse and a fine question, draw both answers, and say what came of it.
 */
import groovy.json.JsonOutput
import qupath.lib.gui.scripting.QPEx
import qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep

class Detection {
    static final String ANALYSIS = 'hepamap.analysis'
    static final String QUESTION = 'hepamap.question'
    static final String MODEL = 'hepamap.analysis_model'
    static final List ASKED = ['model', 'stride', 'mode', 'threshold', 'min_area_um2']
    static final double SMALL_REGION_MM2 = 10.0d

    final Place place
    final Work work
    final boolean quiet
    /** Asked with the size of the file in bytes, before a slide is sent to the server. */
    Closure mayUpload = { long bytes -> HepamapSettings.text('upload') == 'always' }
    /** Leave images alone that have the answer to this question already. */
    boolean skipDone = false
    ServerCalls calls
    Analysis coarse
    Analysis fine
    private List before = null
    private String previewOf = null
    /** The image had a preview before, of a run that QuPath did not outlive. */
    private boolean wasPreview = false

    Detection(Place place, Work work, boolean quiet) {
        this.place = place
        this.work = work
        this.quiet = quiet
    }

    /** What is asked, apart from the slide; `where`: slide, selection, auto for the selection where there is one, or region for a given one. */
    static Map question(imageData, String where = 'auto') {
        OpenImage.localPath(imageData)  // what cannot be placed is refused before anything is asked
        Map question = [client_view: OpenImage.clientView(imageData.getServer())]
        for (name in ASKED) {
            def given = HepamapSettings.get(name)
            if (given != null && given != '') question[name] = given
        }
        Map region = where == 'slide' ? null : where == 'region' ? HepamapSettings.region() : OpenImage.selectedRegion(imageData)
        if (region == null && where == 'selection') {
            throw new Trouble('No annotation is selected. Draw one and select it, or use hepamap > Detect tumor for the whole slide.')
        }
        if (region != null) question.region = region
        question
    }

    Map outcome(Map question) {
        try {
            calls = new ServerCalls(work)
            return run(question)
        } catch (Cancelled cancelled) {
            return stopped()
        } catch (ImageGone gone) {
            [coarse, fine].findAll { it != null }.each { it.stop() }
            return failure(gone.message)
        } catch (Trouble trouble) {
            return unanswered(trouble.message)
        } catch (Throwable error) {
            return unanswered(Reasons.unforeseen(error))
        }
    }

    /** Without the fine answer, nobody needs the coarse one: not here, and not on the server. */
    private Map unanswered(String text) {
        coarse?.stop()
        failure(withdrawn(text))
    }

    static Map failure(String text) { [failed: true, title: 'not done', text: text] }

    private Map run(Map question) {
        calls.connect()
        Map model = modelOf(calls, question.model)
        String key = key(question, model)
        boolean isDone = place.imageData.getProperty(ANALYSIS) && place.imageData.getProperty(QUESTION) == key
        if (skipDone && isDone && !Contours.previewOn(place.imageData)) {
            return [skipped: true, title: 'done before', model: OpenImage.nameOf(model.name), text: 'Done before, by the same model and parameters.']
        }
        Map request = question + [slide: SlideOnServer.find(place.imageData, calls, mayUpload)]
        work.tell(question.region == null ? 'Sending the whole slide' : 'Sending the selected region')
        coarse = coarseQuestion(request, model?.manifest, key)
        askForPreview()
        fine = new Analysis(calls, request)
        fine.post()
        if (coarse != null && fine.isDone()) coarse.stop()  // known already: nobody needs a preview
        else if (coarse != null) showPreview()
        fine.follow(previewOf == null ? '' : 'Preview shown · ') { requirePlace() }
        work.tell('Drawing')
        // Without one, the server takes what a person has chosen for this analysis, else the model's.
        String at = question.threshold == null ? '' : "?threshold=${question.threshold}"
        byte[] body = calls.bytesAtLast("${Analysis.PATH}/${fine.id}/contours${at}")
        work.goOn()  // the last moment to cancel
        show(question, new Contours(body, calls.server), key, model?.name?.toString())
    }

    private void requirePlace() { if (place.isGone()) throw new ImageGone() }

    /** The model's largest steps, patch by patch; null where that would not be quicker, or nobody is there to see it. */
    private Analysis coarseQuestion(Map request, Map manifest, String key) {
        if (quiet || !HepamapSettings.preview() || isSmall(request) || place.imageData.getProperty(QUESTION) == key) return null
        Integer largest = manifest?.strides?.max()
        Integer asked = request.stride ?: manifest?.default_stride
        if (largest == null || asked == null || largest <= asked) return null
        new Analysis(calls, request + [mode: 'patch', stride: largest, priority: 50])
    }

    /** A preview is worth no failure: where it cannot be asked for, there is none, and the fine question says what is wrong. */
    private void askForPreview() {
        try {
            coarse?.post()
        } catch (Trouble noPreview) {
            def lost = coarse
            Windows.inBackground { lost.stop() }  // it may have arrived all the same
            coarse = null
        }
    }

    static Map modelOf(ServerCalls calls, String name) {
        if (name) return calls.json('GET', "/api/v1/models/${URLEncoder.encode(name, 'UTF-8')}")
        (Map) calls.json('GET', '/api/v1/models').items.find { it.default }
    }

    private boolean isSmall(Map request) {
        if (request.region == null) return false
        Double width = request.client_view.pixel_width_um, height = request.client_view.pixel_height_um
        if (width == null || height == null) return true
        OpenImage.areaOf(request.region) * width * height / 1e6 < SMALL_REGION_MM2
    }

    /** The same for the same question: what is asked, and the model with its version. */
    static String key(Map question, Map model) {
        JsonOutput.toJson(new TreeMap(question.findAll { it.key != 'client_view' } + [model: model?.name]))
    }

    private void showPreview() {
        try {
            drawPreview(coarse.follow('Quick preview · ') { requirePlace() })
        } catch (ImageGone gone) {
            throw gone
        } catch (Trouble | IOException noPreview) {
            return  // the fine question will be told the same, or is answered all the same
        }
    }

    private void drawPreview(Map analysis) {
        if (analysis.outcome == 'not_evaluable') return
        def contours = new Contours(calls.bytes("${Analysis.PATH}/${coarse.id}/contours"), calls.server, true)
        work.goOn()
        place.change { image ->
            wasPreview = Contours.previewOn(image)
            before = contours.drawOn(image).replaced
            image.setProperty(Contours.PREVIEW_KEY, contours.model)
        }
        previewOf = contours.model
    }

    /** Take the preview away again and put back what it replaced. */
    private String withdrawn(String text) {
        if (previewOf == null) return text
        try {
            place.change { image ->
                def hierarchy = image.getHierarchy()
                hierarchy.removeObjects(hierarchy.getAnnotationObjects().findAll { OpenImage.isOf(it, previewOf) }, true)
                hierarchy.addObjects(before)
                if (!wasPreview) image.removeProperty(Contours.PREVIEW_KEY)
            }
        } catch (Trouble gone) {
            // with the image, the preview is gone too
        }
        previewOf = null
        text
    }

    private Map stopped() {
        List asked = [coarse, fine].findAll { it != null }
        boolean told = asked.collect { it.stop() }.every()
        withdrawn('')
        if (asked.every { it.id == null }) return [cancelled: true, title: 'cancelled', text: 'You cancelled. Nothing was drawn.']
        if (told) return [cancelled: true, title: 'cancelled', text: 'You cancelled; the server was told to stop. Nothing was drawn.']
        failure("You cancelled, but the server at ${calls.server} could not be told, so the analysis ${asked.last().id} may go on there. " +
            'Nothing was drawn.')
    }

    private Map show(Map question, Contours contours, String key, String version) {
        Map analysis = fine.last
        if (analysis.outcome == 'not_evaluable') {
            String why = analysis.warnings.collect { it.message }.join(' ')
            return [alarming: true, title: 'NOT EVALUABLE', warnings: why, text: withdrawn("NOT EVALUABLE: this slide got no result. " +
                "${why}\n\nNo contours were drawn; earlier ones are unchanged.\n\n${analysis.notice}")]
        }
        Map change = (Map) place.change { image ->
            Map drawn = contours.drawOn(image)
            image.setProperty(ANALYSIS, fine.id)
            image.setProperty(QUESTION, key)
            image.setProperty(MODEL, contours.model)
            image.removeProperty(Contours.PREVIEW_KEY)
            image.removeProperty('hepamap.threshold')
            image.removeProperty('hepamap.verdict')
            note(image, question, contours.model, version)
            MapOverlay.removeFrom(image)
            drawn
        }
        int replaced = (before != null ? before : change.replaced).size()  // none before the preview is not the preview itself
        def facts = contours.collection.properties
        [title: analysis.warnings ? 'done, with warnings' : 'done', regions: change.drawn.size(), model: contours.model,
         tumour_mm2: facts?.tumour_area_mm2, tissue_mm2: facts?.tissue_area_mm2, warnings: analysis.warnings.collect { it.message }.join(' '),
         analysis: fine.id, text: summaryText(question, analysis, contours, change.drawn.size(), replaced)]
    }

    /** The step says all that was asked, also what was left to the server: settings and selection may be others when it is repeated. */
    private void note(image, Map question, String model, String version) {
        Map noted = [model: model, analysis: fine.id, region: question.region == null ? 'whole slide' : 'selected annotations']
        Map asked = ASKED.collectEntries { [(it): question[it]] }
        asked.each { if (it.key != 'model' && it.value != null) noted[it.key] = it.value.toString() }
        asked.model = version ?: model
        asked += question.region == null ? [where: 'slide'] : [where: 'region', region: question.region]
        Steps.add(image, 'Detect tumor (hepamap)', noted, "hepamap drew its contours here (${model})", 'detect', asked)
    }

    private String summaryText(Map question, Map analysis, Contours contours, int drawn, int replaced) {
        String where = question.region == null ? 'on the whole slide' : 'in the selected annotations'
        String regions = drawn == 0 ? 'No tumor region' : drawn == 1 ? '1 tumor region' : "${drawn} tumor regions"
        String text = "${regions} ${where} (${contours.model})."
        def facts = contours.collection.properties
        if (facts?.tissue_area_mm2 && facts.tumour_area_mm2 != null) {
            double tumour = facts.tumour_area_mm2, tissue = facts.tissue_area_mm2, share = 100 * tumour / tissue
            text += String.format(Locale.ROOT, ' Tumor: %.2f mm², %.1f %% of %.2f mm² of tissue.', tumour, share, tissue)
        }
        if (replaced > 0) text += " ${replaced} earlier contour${replaced == 1 ? '' : 's'} of this model replaced."
        if (analysis.warnings) text += '\n\nLook twice: ' + analysis.warnings.collect { it.message }.join(' ')
        if (!quiet && !place.isShown()) text += "\n\nThe contours belong to ${place.title()}, in the project."
        text + "\n\n${analysis.notice}"
    }
}

/** Notes in QuPath's workflow; each is a script that can be run again. */
class Steps {
    /** Java takes no longer text in one piece than 65535 bytes. */
    static final int PIECE = 2000

    /** The file of this script; null where QuPath ran a text without a file. */
    static String scriptFile = null

    /** Where the script was read from; else the file that QuPath runs, unless that is a script of the user's that runs this one. */
    static String ownFile(String told) {
        File read = null
        try {
            read = new File(Hepamap.protectionDomain.codeSource.location.toURI())
        } catch (RuntimeException | URISyntaxException textWithoutFile) {
            // QuPath reads the file itself
        }
        [read, told == null ? null : new File(told)].find { it != null && isOurs(it) }?.path
    }

    private static boolean isOurs(File file) { file.isFile() && file.getText('UTF-8').contains('class Hepamap {') }

    static void add(image, String name, Map noted, String comment, String command, Map arguments) {
        image.getHistoryWorkflow().addStep(new DefaultScriptableWorkflowStep(name, noted, text(comment, command, arguments)))
    }

    /** What cannot be repeated is a comment. */
    static void note(image, String name, Map noted, String comment) {
        image.getHistoryWorkflow().addStep(new DefaultScriptableWorkflowStep(name, noted, "// ${comment}".toString()))
    }

    /** One expression, without a name of its own: QuPath makes a script of many steps by writing them one below the other. */
    static String text(String comment, String command, Map arguments) {
        String file = quoted(scriptFile ?: HepamapSettings.folder().resolve('hepamap.groovy').toString())
        "// ${comment}\n" +
            'new GroovyShell(getClass().classLoader, new Binding(binding.variables + [' +
            "args: [${quoted(command)}, ${inPieces(JsonOutput.toJson(arguments))}] as String[],\n" +
            "    'qupath.script.file': ${file}])).evaluate(new File(${file}))"
    }

    private static String inPieces(String text) {
        if (text.size() <= PIECE) return quoted(text)
        List pieces = (0..<text.size()).step(PIECE).collect { quoted(text.substring(it, Math.min(text.size(), it + PIECE))) }
        "[\n${pieces.join(',\n')}].join('')"
    }

    static String quoted(String text) { "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'" }
}
