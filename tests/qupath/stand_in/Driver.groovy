import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.util.concurrent.CountDownLatch
import javafx.application.Platform
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.customizers.ImportCustomizer
import qupath.Desk
import qupath.lib.gui.scripting.QPEx
import qupath.lib.images.ImageData
import qupath.lib.images.servers.FileImageServer
import qupath.lib.images.servers.TransformingImageServer
import qupath.lib.objects.PathObject
import qupath.lib.objects.Roi

/** Runs a script as QuPath would, once for each line of JSON on standard input; answers each with a line of JSON. */

Object imageOf(Map slide) {
    if (slide == null) return null
    def image = new ImageData(server: slide.transformed ? new TransformingImageServer(slide) : new FileImageServer(slide))
    slide.objects.each { Map given ->
        def object = new PathObject(roi: new Roi(given.polygons, given.area != false), name: given.name, classText: given['class'],
            locked: given.locked ?: false, type: given.type ?: 'annotation')
        if (given.id != null) object.id = UUID.fromString(given.id)
        object.metadata.putAll(given.metadata ?: [:])
        image.hierarchy.objects << object
        if (given.selected) image.hierarchy.selectionModel.selectedObjects << object
    }
    image
}

Map described(image) {
    if (image == null) return null
    def objects = image.hierarchy.objects.collect {
        [id: it.id.toString(), name: it.name, 'class': it.classText, locked: it.locked, polygons: it.roi.polygons, metadata: it.metadata,
         measurements: it.measurements]
    }
    def steps = image.historyWorkflow.steps.collect { [name: it.name, parameters: it.parameterMap, script: it.script] }
    [objects: objects, workflow: steps]
}

Script scriptOf(String text, StringWriter printed) {
    def configuration = new CompilerConfiguration()
    def imports = new ImportCustomizer()
    imports.addStaticStars('qupath.lib.gui.scripting.QPEx')
    imports.addImports('qupath.fx.dialogs.Dialogs', 'javafx.application.Platform')
    configuration.addCompilationCustomizers(imports)
    def script = new GroovyShell(getClass().classLoader, new Binding(), configuration).parse(text, 'Detect_tumor.groovy')
    script.binding.setVariable('out', new PrintWriter(printed, true))
    script
}

Map played(Map given) {
    def desk = Desk.current = new Desk(doOn: given.do_on ?: [:])
    def image = imageOf(given.image)
    def other = imageOf(given.other_image)
    QPEx.hasWindow = given.mode != 'headless'
    QPEx.shown = given.mode in ['headless', 'project'] ? other : image
    QPEx.otherImage = other
    QPEx.batchImage = given.mode in ['headless', 'project'] ? image : null
    def printed = new StringWriter()
    def script = scriptOf(given.script, printed)
    String thrown = null
    boolean busyOnReturn = false
    boolean interrupted = false
    def returned = new CountDownLatch(1)
    Runnable run = {
        try {
            script.run()
        } catch (Throwable error) {
            thrown = error.toString()
        }
        interrupted = Thread.currentThread().isInterrupted()
        busyOnReturn = desk.dialogs.isEmpty()
        returned.countDown()
    }
    given.mode == 'menu' ? Platform.runLater(run) : new Thread(run).start()
    if (!returned.await(20, java.util.concurrent.TimeUnit.SECONDS)) desk.errors << "the script hangs"
    if (given.mode in ['menu', 'editor'] && thrown == null) waitForDialog(desk)
    [image: described(image), other: described(other), dialogs: desk.dialogs, messages: desk.messages, shares: desk.shares, errors: desk.errors,
     windows_opened: desk.windowsOpened, windows_closed: desk.windowsClosed, printed: printed.toString(), thrown: thrown,
     busy_on_return: busyOnReturn, interrupted: interrupted]
}

void waitForDialog(Desk desk) {
    long giveUp = System.currentTimeMillis() + 20_000
    while (desk.dialogs.isEmpty() && desk.errors.isEmpty() && System.currentTimeMillis() < giveUp) Thread.sleep(5)
    def last = new CountDownLatch(1)
    Platform.runLater { last.countDown() }
    last.await()
}

def answers = System.out
System.setOut(System.err)  // what else prints must not come between
System.in.eachLine('UTF-8') { line ->
    def answer
    try {
        answer = played(new JsonSlurper().parseText(line))
    } catch (Throwable error) {
        answer = [broken: error.toString(), trace: error.stackTrace.take(12)*.toString()]
    }
    answers.write((JsonOutput.toJson(answer) + '\n').getBytes('UTF-8'))
    answers.flush()
}
