/*
 * Detect tumor: finds hepatocellular carcinoma on the open H&E slide, with a hepamap server, and draws its contours.
 * For Research Use Only. Not for use in diagnostic procedures.
 *
 * Needs: QuPath 0.5, 0.6 or 0.7; a running hepamap server that sees the slide's file (see docs/qupath.md).
 *
 * Steps: 1. Open a slide. 2. To limit the analysis, draw annotations and select them; select nothing for the whole slide.
 * 3. Run this script (script editor, menu item, "Run for project", or `QuPath script`). 4. Read the summary.
 *
 * Each run replaces the contours that the same model drew on this image before: annotations of class "Tumor (AI)" with
 * hepamap's metadata, as long as they are locked. Unlock a contour to make it yours; nothing else is ever touched.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import groovy.transform.CompileStatic
import groovy.transform.Field

import java.net.http.HttpClient
import java.net.http.HttpConnectTimeoutException
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.net.http.HttpTimeoutException
import java.nio.channels.UnresolvedAddressException
import java.time.Duration
import java.util.concurrent.ExecutionException
import java.util.concurrent.Future
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import javafx.concurrent.Task
import javafx.event.ActionEvent
import javafx.scene.control.ButtonType
import javax.net.ssl.SSLException
import org.controlsfx.dialog.ProgressDialog
import qupath.lib.common.GeneralTools
import qupath.lib.images.servers.TransformingImageServer
import qupath.lib.io.PathIO
import qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep

// ------------------------------------------------------------------------------------------------------------ Settings

// Address of the server. Left empty: the environment variable HEPAMAP_URL, else http://127.0.0.1:8000
@Field String SERVER_URL = ''
// Model, such as 'hcc-10x' or 'hcc-5x'. Left empty: the server's default
@Field String MODEL = ''
// Step between patches in the model's pixels, such as 32; null: the model's default
@Field Integer STRIDE = null
// Tumour probability from which tissue counts as tumour, such as 0.5; null: the model's default
@Field Double THRESHOLD = null
// Where the server sees a folder under another name: ['S:/slides': '/slides']
@Field Map<String, String> SLIDE_FOLDERS = [:]

// ----------------------------------------------------------------------------------------------------------- Constants

@Field final String TUMOUR_CLASS = 'Tumor (AI)'
@Field final String MODEL_KEY = 'hepamap.model'
@Field final String DEFAULT_URL = 'http://127.0.0.1:8000'
@Field final long POLL_MS = 1000
@Field final long LOST_CONTACT_MS = 60_000
@Field final int CONNECT_S = 10
@Field final int ANSWER_S = 60
@Field final int CONTOURS_S = 300
// Cells at the edge of a slide reach over it by less than one cell.
@Field final double OVERHANG_PX = 1024
@Field final String WHERE_ADDRESS = 'The address is SERVER_URL at the top of the script, or the environment variable HEPAMAP_URL.'

@Field final Map CANCELLED = [title: 'cancelled', text: 'You cancelled. Nothing was drawn.']

@Field HttpClient httpClient = null

/** What a person can understand and mend; its text is shown as it is. */
class Trouble extends Exception {
    Trouble(String message) { super(message, null, false, false) }
}

/** The server could not be asked; it may be possible a moment later. */
class NoAnswer extends Trouble {
    NoAnswer(String message) { super(message) }
}

@CompileStatic  // protected methods of Task are called directly then, not by reflection
class DetectionTask extends Task<Object> {
    Closure work
    Map outcome

    @Override
    protected Object call() { outcome = (Map) work.call({ String message, double share -> tell(message, share) }) }

    private void tell(String message, double share) {
        updateMessage(message)
        updateProgress(share, 1.0d)
    }
}

detectTumor()

// ------------------------------------------------------------------------------------- Windows, threads and the terminal

void detectTumor() {
    def imageData = getCurrentImageData()
    def gui = getQuPath()
    // In "Run for project" the image is none of the viewer's: no window per slide then.
    boolean quiet = gui == null || (imageData != null && !imageData.is(gui.getImageData()))
    Closure work
    try {
        Map request = requestFor(imageData)
        work = { Closure tell -> outcomeOf(imageData, request, tell) }
    } catch (Trouble trouble) {
        Map failed = failure(trouble.message)
        work = { Closure tell -> failed }
    }
    quiet ? runInTerminal(work) : runWithProgressWindow(work)
}

void runInTerminal(Closure work) {
    String printed = ''
    Map outcome = work.call({ String message, double share ->
        String stage = message.replaceAll(/[ ·:].*/, '')
        String step = stage + (share < 0 ? '' : (int) (share * 10))
        if (step != printed) println("hepamap: ${message}")
        printed = step
    })
    if (outcome.failed) throw new Trouble("hepamap: ${outcome.text}")
    println("hepamap: ${outcome.title}. ${outcome.text}")
}

void runWithProgressWindow(Closure work) {
    def task = new DetectionTask(work: work)
    Runnable job = {
        task.run()
        Thread.interrupted()  // left over from Cancel; the thread may be the script editor's
        Platform.runLater { showOutcome(task.outcome ?: CANCELLED) }  // none: cancelled before it began
    }
    if (Platform.isFxApplicationThread()) {
        showProgressWindow(task)
        def thread = new Thread(job, 'hepamap')
        thread.setDaemon(true)
        thread.start()
    } else {
        Platform.runLater { showProgressWindow(task) }
        job.run()
    }
}

void showProgressWindow(DetectionTask task) {
    def window = new ProgressDialog(task)
    window.initOwner(getQuPath().getStage())
    window.setTitle('hepamap')
    window.setHeaderText('Looking for tumor')
    window.getDialogPane().getButtonTypes().add(ButtonType.CANCEL)
    window.getDialogPane().lookupButton(ButtonType.CANCEL).addEventFilter(ActionEvent.ACTION) { event ->
        event.consume()
        task.cancel()
    }
    window.setOnCloseRequest { task.cancel() }
}

void showOutcome(Map outcome) {
    String title = "hepamap: ${outcome.title}".toString()
    String text = outcome.text.toString()
    if (outcome.failed || outcome.alarming) Dialogs.showErrorMessage(title, text)
    else Dialogs.showPlainMessage(title, text)
}

Map failure(String text) { [failed: true, title: 'not done', text: text] }

Map unforeseen(Throwable error) {
    error.printStackTrace()
    failure("Something went wrong in the script that nobody foresaw: ${error}. The log (View > Show log) has more; please " +
        'report it.')
}

// -------------------------------------------------------------------------------------------- What is open and selected

Map requestFor(imageData) {
    if (imageData == null) throw new Trouble('No image is open. Open a slide, then run this again.')
    def server = imageData.getServer()
    Map request = [slide: [path: pathOnServer(localPath(server))], client_view: clientView(server)]
    if (MODEL?.trim()) request.model = MODEL.trim()
    if (STRIDE != null) request.stride = STRIDE
    if (THRESHOLD != null) request.threshold = THRESHOLD
    Map region = selectedRegion(imageData.getHierarchy())
    if (region != null) request.region = region
    request
}

String localPath(server) {
    def uris = server.getURIs()
    if (uris.size() != 1 || !'file'.equalsIgnoreCase(uris.first().getScheme())) {
        throw new Trouble("This image is not one file on a disk (${uris.join(', ') ?: server.getPath()}). hepamap reads slides " +
            'from files: open the slide by its file, then run this again.')
    }
    String builder = server.getBuilder()?.getClass()?.getSimpleName()
    if (server instanceof TransformingImageServer || !(builder in [null, 'DefaultImageServerBuilder'])) {
        throw new Trouble('This image is a rotated, cropped or otherwise changed view of its file, so contours would land ' +
            'in the wrong place. Open the original slide, then run this again.')
    }
    def series = server.getPath() =~ /--series\W+([1-9]\d*)/
    if (series.find()) {
        throw new Trouble("This image is one of several in its file (series ${series.group(1)}). hepamap reads the main image " +
            'of a slide: open that one, then run this again.')
    }
    if (server.nZSlices() > 1 || server.nTimepoints() > 1) {
        throw new Trouble("This image has ${server.nZSlices()} focus planes and ${server.nTimepoints()} time points. hepamap " +
            'reads slides with one of each: open such a slide, then run this again.')
    }
    GeneralTools.toPath(uris.first()).toString()
}

String pathOnServer(String local) {
    String path = local.replace('\\', '/')
    for (folder in SLIDE_FOLDERS) {
        String here = folder.key.replace('\\', '/').replaceAll('/+$', '') + '/'
        if (path.regionMatches(true, 0, here, 0, here.length())) {
            return folder.value.replaceAll('/+$', '') + '/' + path.substring(here.length())
        }
    }
    local
}

Map clientView(server) {
    Map view = [width: server.getWidth(), height: server.getHeight()]
    double width = server.getPixelCalibration().getPixelWidthMicrons()
    double height = server.getPixelCalibration().getPixelHeightMicrons()
    if (Double.isFinite(width) && Double.isFinite(height)) view += [pixel_width_um: width, pixel_height_um: height]
    view
}

Map selectedRegion(hierarchy) {
    // Contours of ours are no region: who looks at one and starts again means the slide.
    def selected = hierarchy.getSelectionModel().getSelectedObjects().findAll { it.isAnnotation() && !isOurs(it) }
    if (selected.isEmpty()) return null
    def shapes = selected.collect { it.getROI() }.findAll { it != null && it.isArea() && it.getArea() > 0 }
    if (shapes.isEmpty()) {
        throw new Trouble('The selected annotation has no area (a line, or points). Select a closed region, or nothing for the ' +
            'whole slide, then run this again.')
    }
    def features = shapes.collect { [type: 'Feature', properties: [:], geometry: asGeoJson(it.getGeometry())] }
    [type: 'FeatureCollection', features: features]
}

Map asGeoJson(geometry) {
    List polygons = (0..<geometry.getNumGeometries()).collect { geometry.getGeometryN(it) }
        .findAll { it.getGeometryType() == 'Polygon' }
        .collect { polygon ->
            def holes = (0..<polygon.getNumInteriorRing()).collect { polygon.getInteriorRingN(it) }
            ([polygon.getExteriorRing()] + holes).collect { ring -> ring.getCoordinates().collect { [it.x, it.y] } }
        }
    polygons.size() == 1 ? [type: 'Polygon', coordinates: polygons[0]] : [type: 'MultiPolygon', coordinates: polygons]
}

boolean isOurs(object) {
    object.isAnnotation() && object.isLocked() && object.getPathClass()?.toString() == TUMOUR_CLASS &&
        object.getMetadata().containsKey(MODEL_KEY)
}

// --------------------------------------------------------------------------------------------------------- One analysis

Map outcomeOf(imageData, Map request, Closure tell) {
    String server = null
    Future posted = null
    try {
        server = connect(tell)
        tell(request.region == null ? 'Sending the whole slide' : 'Sending the selected region', -1.0d)
        posted = begin(server, 'POST', '/api/v1/analyses', JsonOutput.toJson(request), ANSWER_S)
        Map analysis = follow(server, analysisFrom(finish(server, posted), server, request).id, request, tell)
        tell('Drawing', -1.0d)
        byte[] contours = ask(server, 'GET', "/api/v1/analyses/${analysis.id}/contours", null, CONTOURS_S).body()
        return show(imageData, request, analysis, contours, server)
    } catch (Trouble trouble) {
        return failure(trouble.message)
    } catch (InterruptedException cancelled) {
        return cancelOnServer(server, posted)
    } catch (Throwable error) {
        return unforeseen(error)
    }
}

String connect(Closure tell) {
    String server = serverAddress()
    tell("Connecting to ${server}", -1.0d)
    Map version = jsonFrom(server, 'GET', '/version', null)
    if (version.name != 'hepamap') throw new Trouble(notHepamap(server))
    if (version.api != 'v1') {
        throw new Trouble("The hepamap at ${server} (version ${version.version}) speaks another language (${version.api}) than " +
            'this script (v1). Use the script that came with the server.')
    }
    server
}

String serverAddress() {
    String given = [SERVER_URL, System.getenv('HEPAMAP_URL'), DEFAULT_URL].collect { it?.trim() }.find { it }
    String address = given.contains('://') ? given : "http://${given}"
    address = address.replaceAll('/+$', '').replaceAll('/api(/v1)?$', '').replaceAll('/+$', '')
    try {
        URI uri = new URI(address)
        if (uri.getHost() && uri.getScheme().toLowerCase(Locale.ROOT) in ['http', 'https']) return address
    } catch (URISyntaxException notOne) {
        // said below
    }
    throw new Trouble("“${given}” is not the address of a server. Write it like http://server:8000. ${WHERE_ADDRESS}")
}

Map follow(String server, String id, Map request, Closure tell) {
    long lastSeen = System.currentTimeMillis()
    while (true) {
        try {
            Map analysis = analysisFrom(ask(server, 'GET', "/api/v1/analyses/${id}", null, ANSWER_S), server, request)
            lastSeen = System.currentTimeMillis()
            if (isFinished(analysis, request)) return analysis
            tell(progressText(analysis), analysis.progress.total ? analysis.progress.fraction as double : -1.0d)
        } catch (NoAnswer gone) {
            if (System.currentTimeMillis() - lastSeen > LOST_CONTACT_MS) {
                throw new Trouble("The server at ${server} stopped answering while it worked (${gone.message}) The analysis " +
                    "${id} may still go on there. Check the network and the server, then run this again.")
            }
            tell('Waiting for the server, which does not answer just now', -1.0d)
        }
        Thread.sleep(POLL_MS)
    }
}

boolean isFinished(Map analysis, Map request) {
    def error = analysis.error
    if (analysis.state == 'failed') throw new Trouble(problemText(error.code, error.message, error.cure, request))
    if (analysis.state == 'cancelled') {
        throw new Trouble('Somebody cancelled the analysis on the server. Run this again when you want it.')
    }
    analysis.state == 'succeeded'
}

String progressText(Map analysis) {
    if (analysis.state == 'queued') return 'Waiting for other analyses to finish'
    def progress = analysis.progress
    String text = progress.stage.capitalize()
    if (progress.total) text += String.format(Locale.ROOT, ' · %.0f %%', 100 * (progress.fraction as double))
    progress.eta_s == null ? text : text + " · about ${duration(progress.eta_s as double)} left"
}

String duration(double seconds) {
    if (seconds < 90) return "${Math.max(1, Math.round(seconds))} s"
    seconds < 5400 ? "${Math.round(seconds / 60)} min" : String.format(Locale.ROOT, '%.1f h', seconds / 3600)
}

Map cancelOnServer(String server, Future posted) {
    Thread.interrupted()  // else the requests below would be interrupted too
    if (posted == null) return CANCELLED
    String id
    try {
        // The answer may still be on its way, and only it says what to cancel.
        id = analysisFrom(finish(server, posted), server, [:]).id
    } catch (Trouble refused) {
        return CANCELLED
    }
    try {
        ask(server, 'DELETE', "/api/v1/analyses/${id}", null, CONNECT_S)
        return [title: 'cancelled', text: 'You cancelled; the server was told to stop. Nothing was drawn.']
    } catch (Trouble untold) {
        return failure("You cancelled, but the server at ${server} could not be told, so the analysis ${id} may go on there. " +
            'Nothing was drawn.')
    }
}

// ---------------------------------------------------------------------------------------------------------- The contours

Map show(imageData, Map request, Map analysis, byte[] contours, String server) {
    Map collection = featureCollection(contours, server)
    if (Thread.interrupted()) throw new InterruptedException()  // the last moment to cancel
    if (analysis.outcome == 'not_evaluable') return notEvaluable(analysis)
    def hierarchy = imageData.getHierarchy()
    String model = modelOf(collection)
    def earlier = hierarchy.getAnnotationObjects().findAll { isOurs(it) && nameOf(it.getMetadata()[MODEL_KEY]) == model }
    def drawn = objectsFrom(collection, contours, hierarchy, earlier)
    requireInside(drawn, imageData.getServer())
    hierarchy.removeObjects(earlier, true)  // true: what a person drew inside them stays
    hierarchy.addObjects(drawn)
    noteInWorkflow(imageData, request, analysis, model)
    String text = summaryText(imageData, request, analysis, collection, model, drawn.size(), earlier.size())
    [title: analysis.warnings ? 'done, with warnings' : 'done', text: text]
}

Map notEvaluable(Map analysis) {
    String why = analysis.warnings.collect { it.message }.join(' ')
    [alarming: true, title: 'NOT EVALUABLE', text: "NOT EVALUABLE: this slide got no result. ${why}\n\nNo contours were drawn; " +
        "earlier ones are unchanged.\n\n${analysis.notice}"]
}

String modelOf(Map collection) {
    def inFeatures = collection.features.findResult { it.properties?.metadata?.get(MODEL_KEY) }
    nameOf(collection.properties?.provenance?.model?.id ?: inFeatures ?: MODEL)
}

/** hcc-10x of hcc-10x@1.0.0. */
String nameOf(model) { model.toString().trim().replaceAll('@.*', '') }

Map featureCollection(byte[] contours, String server) {
    def collection = parsed(contours)
    if (!(collection instanceof Map) || collection.type != 'FeatureCollection' || !(collection.features instanceof List)) {
        throw new Trouble("The server at ${server} sent something else than contours. Nothing was changed. Run this again; if " +
            'it happens again, tell whoever runs the server.')
    }
    collection
}

/** Read the contours; an id that another object of the image has already (a contour that a person unlocked) is left out. */
List objectsFrom(Map collection, byte[] contours, hierarchy, earlier) {
    Set taken = hierarchy.getAnnotationObjects().findAll { !(it in earlier) }.collect { it.getID().toString() } as Set
    byte[] readable = contours
    if (collection.features.any { it.id in taken }) {
        collection.features.each { if (it.id in taken) it.remove('id') }
        readable = JsonOutput.toJson(collection).getBytes('UTF-8')
    }
    try {
        return new ArrayList(PathIO.readObjectsFromGeoJSON(new ByteArrayInputStream(readable)))
    } catch (Exception unreadable) {
        throw new Trouble("QuPath could not read the contours (${unreadable.message}). Nothing was changed. Please report it " +
            'with your versions of QuPath and hepamap.')
    }
}

void requireInside(List objects, server) {
    int width = server.getWidth(), height = server.getHeight()
    boolean inside = objects.every {
        def roi = it.getROI()
        double left = roi.getBoundsX(), top = roi.getBoundsY()
        double right = left + roi.getBoundsWidth(), bottom = top + roi.getBoundsHeight()
        right > 0 && bottom > 0 && left < width && top < height && left >= -OVERHANG_PX && top >= -OVERHANG_PX &&
            right <= width + OVERHANG_PX && bottom <= height + OVERHANG_PX
    }
    if (!inside) {
        throw new Trouble('The contours do not lie on this image, so they were not drawn. Nothing was changed. Check that the ' +
            'server reads the same slide; if it does, please report it.')
    }
}

void noteInWorkflow(imageData, Map request, Map analysis, String model) {
    Map noted = [model: model, analysis: analysis.id, region: request.region == null ? 'whole slide' : 'selected annotations']
    if (THRESHOLD != null) noted.threshold = THRESHOLD.toString()
    if (STRIDE != null) noted.stride = STRIDE.toString()
    String script = "// hepamap drew its contours here (${model}); to repeat, run \"Detect tumor.groovy\"".toString()
    imageData.getHistoryWorkflow().addStep(new DefaultScriptableWorkflowStep('Detect tumor (hepamap)', noted, script))
}

String summaryText(imageData, Map request, Map analysis, Map collection, String model, int drawn, int replaced) {
    String where = request.region == null ? 'on the whole slide' : 'in the selected annotations'
    String regions = drawn == 0 ? 'No tumor region' : drawn == 1 ? '1 tumor region' : "${drawn} tumor regions"
    String text = "${regions} ${where} (${model})."
    def facts = collection.properties
    if (facts?.tissue_area_mm2 && facts.tumour_area_mm2 != null) {
        double tumour = facts.tumour_area_mm2, tissue = facts.tissue_area_mm2, share = 100 * tumour / tissue
        text += String.format(Locale.ROOT, ' Tumor: %.2f mm², %.1f %% of %.2f mm² of tissue.', tumour, share, tissue)
    }
    if (replaced > 0) text += " ${replaced} earlier contour${replaced == 1 ? '' : 's'} of this model replaced."
    if (analysis.warnings) text += '\n\nLook twice: ' + analysis.warnings.collect { it.message }.join(' ')
    def gui = getQuPath()
    if (gui != null && !imageData.is(gui.getImageData())) {
        text += "\n\nThe contours belong to ${imageData.getServer().getMetadata().getName()}."
    }
    text + "\n\n${analysis.notice}"
}

// ------------------------------------------------------------------------------------------------------------------ HTTP

Future begin(String server, String method, String path, String json, int seconds) {
    if (httpClient == null) {
        def builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
        httpClient = builder.connectTimeout(Duration.ofSeconds(CONNECT_S)).build()
    }
    def body = json == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(json)
    def request = HttpRequest.newBuilder(URI.create(server + path)).timeout(Duration.ofSeconds(seconds)).method(method, body)
    if (json != null) request.header('Content-Type', 'application/json')
    httpClient.sendAsync(request.header('Accept', 'application/json').build(), HttpResponse.BodyHandlers.ofByteArray())
}

HttpResponse finish(String server, Future future) {
    try {
        return future.get(CONTOURS_S + CONNECT_S, TimeUnit.SECONDS)
    } catch (ExecutionException | TimeoutException failed) {
        throw new NoAnswer(whyNoAnswer(server, failed))
    }
}

/** A response of status 2xx; every other one is told as trouble. */
HttpResponse ask(String server, String method, String path, String json, int seconds) {
    requireSuccess(finish(server, begin(server, method, path, json, seconds)), server, [:])
}

Map jsonFrom(String server, String method, String path, String json) {
    def answer = parsed(ask(server, method, path, json, ANSWER_S).body())
    if (!(answer instanceof Map)) throw new Trouble(notHepamap(server))
    answer
}

Map analysisFrom(HttpResponse response, String server, Map request) {
    def answer = parsed(requireSuccess(response, server, request).body())
    if (!(answer instanceof Map) || !answer.id || !answer.state) throw new Trouble(notHepamap(server))
    answer
}

Object parsed(byte[] body) {
    try {
        return new JsonSlurper().parse(body, 'UTF-8')
    } catch (RuntimeException notJson) {  // not always a JsonException: an empty body ends in an index out of bounds
        return null
    }
}

HttpResponse requireSuccess(HttpResponse response, String server, Map request) {
    int status = response.statusCode()
    if (status >= 200 && status < 300) return response
    def problem = parsed(response.body())
    if (problem instanceof Map && problem.code && problem.detail) {
        if (status == 503) throw new NoAnswer("The server cannot work just now: ${problem.detail} ${problem.cure ?: ''}".trim())
        throw new Trouble(problemText(problem.code, problem.detail, problem.cure, request))
    }
    if (status in [502, 503, 504]) {
        throw new NoAnswer("Something in front of the server at ${server} answers, but hepamap does not (HTTP ${status}). Try " +
            'again; if it goes on, tell whoever runs the server.')
    }
    throw new Trouble(refusalText(server, status, response.headers().firstValue('Location').orElse('it does not say which')))
}

// -------------------------------------------------------------------------------------------------------- Plain sentences

String refusalText(String server, int status, String location) {
    if (status in 300..399) return "${server} sends its callers to another address (${location}). Use that one. ${WHERE_ADDRESS}"
    if (status in [401, 403, 407]) {
        return "The server at ${server} does not let you in (HTTP ${status}). Ask whoever runs it for access."
    }
    if (status < 500) return notHepamap(server)
    "The server at ${server} failed (HTTP ${status}). Try again; if it happens again, tell whoever runs it."
}

String whyNoAnswer(String server, Throwable failed) {
    List causes = []
    for (Throwable cause = failed; cause != null && causes.size() < 10; cause = cause.getCause()) causes << cause
    Closure has = { Class kind -> causes.any { kind.isInstance(it) } }
    if (has(UnresolvedAddressException)) {
        return "No computer is known by the name in ${server}. Check its spelling. ${WHERE_ADDRESS}"
    }
    if (has(HttpConnectTimeoutException) || has(ConnectException)) {
        return "No server answers at ${server}. Check that hepamap is running, that the address and port are right, and that " +
            "no firewall is between. ${WHERE_ADDRESS}"
    }
    if (has(HttpTimeoutException) || has(TimeoutException)) {
        return "The server at ${server} took too long to answer. It may be busy: try again in a minute."
    }
    String why = causes.last().message ?: causes.last().getClass().getSimpleName()
    if (has(SSLException)) {
        return "The secure connection to ${server} failed (${why}). The server needs a certificate that this computer trusts, " +
            "or the address should begin with http:// instead. ${WHERE_ADDRESS}"
    }
    "The connection to ${server} broke (${why}). Check that a hepamap server is at this address. ${WHERE_ADDRESS}"
}

String notHepamap(String server) {
    "What answers at ${server} is not a hepamap server. Check the address and port. ${WHERE_ADDRESS}"
}

String problemText(code, said, cure, Map request) {
    String server = "${said} ${cure ?: ''}".trim()
    String path = request.slide?.path
    switch (code) {
        case ['slide_not_found', 'slide_not_allowed', 'slide_not_readable']:
            return "The server cannot use the file of this slide: ${path}\nIt says: ${server}\nhepamap reads slides from its " +
                'own disks: the slide must lie in a folder that the server may read (its slide roots). If the server has that ' +
                'folder under another name, write both names into SLIDE_FOLDERS at the top of the script. A slide that lies ' +
                'only on this computer can be uploaded over the REST interface (see docs/qupath.md).'
        case 'slide_mismatch':
            return "The slide on the server is not the one that is open: ${path}\nThe server says: ${server}\nNothing was drawn."
        case ['pixel_size_missing', 'pixel_size_invalid']:
            return "The size of a pixel is not known: ${server}\nIn QuPath, open the Image tab, double-click “Pixel width” and " +
                '“Pixel height”, enter the µm per pixel that the scanner used, and run this again.'
        case 'internal_error':
            return "The server failed: ${server}"
        default:
            return "The server refuses: ${server}"
    }
}
