import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import javafx.application.Platform
import javafx.stage.Stage
import javafx.stage.Window
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.runtime.InvokerHelper
import qupath.Desk
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.scripting.QPEx
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.images.ImageData
import qupath.lib.images.servers.FileImageServer
import qupath.lib.images.servers.TransformingImageServer
import qupath.lib.objects.PathObject
import qupath.lib.objects.Roi
import qupath.lib.objects.classes.PathClass
import qupath.lib.projects.Project
import qupath.lib.projects.ProjectImageEntry

/** Runs a script as QuPath would, once for each line of JSON on standard input; answers each with a line of JSON. */

class Cases {
    static final Map<String, Class> COMPILED = [:]
    static final Stage STAGE = onFx { new Stage() }
    /** What QuPath writes in front of a script that it runs, as far as the stand-in has it; on one line, so that lines keep their numbers. */
    static final String DEFAULT_IMPORTS = (['qupath.lib.images.ImageData', 'qupath.lib.objects.PathObject', 'qupath.lib.objects.PathObjects',
        'qupath.lib.objects.hierarchy.PathObjectHierarchy', 'qupath.lib.objects.classes.PathClass', 'qupath.lib.regions.ImageRegion',
        'qupath.lib.common.GeneralTools', 'qupath.lib.gui.QuPathGUI', 'qupath.fx.dialogs.Dialogs', 'qupath.lib.gui.scripting.QPEx',
        'java.awt.image.BufferedImage', 'javafx.application.Platform'].collect { "import ${it};" } +
        'import static qupath.lib.gui.scripting.QPEx.*;').join(' ')

    static Object onFx(Closure work) {
        Object result = null
        Throwable failed = null
        def done = new CountDownLatch(1)
        Platform.runLater {
            try {
                result = work.call()
            } catch (Throwable error) {
                failed = error
            }
            done.countDown()
        }
        if (!done.await(20, TimeUnit.SECONDS)) throw new IllegalStateException('the JavaFX thread is busy')
        if (failed != null) throw failed
        result
    }

    static ImageData imageOf(Map slide) {
        if (slide == null) return null
        def image = new ImageData(slide.transformed ? new TransformingImageServer(slide) : new FileImageServer(slide))
        slide.objects.each { Map given ->
            def object = new PathObject(roi: new Roi(given.polygons, given.area != false), name: given.name,
                pathClass: PathClass.fromString(given['class']), locked: given.locked ?: false, type: given.type ?: 'annotation')
            if (given.id != null) object.id = UUID.fromString(given.id)
            object.metadata.putAll(given.metadata ?: [:])
            image.getHierarchy().objects << object
            if (given.selected) image.getHierarchy().selectionModel.selectedObjects << object
        }
        slide.properties?.each { image.setProperty(it.key, it.value) }
        image
    }

    static Map described(ImageData image) {
        if (image == null) return null
        def objects = image.getHierarchy().objects.collect {
            [id: it.id.toString(), name: it.name, 'class': it.pathClass?.toString(), locked: it.locked, polygons: it.roi.polygons,
             metadata: it.metadata, measurements: it.measurements]
        }
        def steps = image.getHistoryWorkflow().steps.collect { [name: it.name, parameters: it.parameterMap, script: it.script] }
        [objects: objects, workflow: steps, properties: image.allProperties()]
    }

    static Map describedOverlay(QuPathViewer viewer, Map points) {
        def overlay = viewer.getCustomPixelLayerOverlay()
        if (overlay == null) return null
        def region = overlay.getRegionMap().keySet().first()
        def server = viewer.getImageData().getServer()
        def colours = [:]
        if (points != null) {
            def painted = overlay.painted(server.getWidth(), server.getHeight())
            points.each { name, at -> colours[name] = [16, 8, 0, 24].collect { (painted.getRGB(at[0], at[1]) >> it) & 255 } }
        }
        [region: [region.x, region.y, region.width, region.height], interpolation: overlay.interpolation.toString(), colours: colours]
    }

    static Script scriptOf(String text, Map variables, StringWriter printed) {
        if (!COMPILED.containsKey(text)) {
            def loader = new GroovyClassLoader(Cases.classLoader, new CompilerConfiguration())
            COMPILED[text] = loader.parseClass(DEFAULT_IMPORTS + text, 'hepamap_client.groovy')
        }
        InvokerHelper.createScript(COMPILED[text], new Binding(variables + [out: new PrintWriter(printed, true)]))
    }
}

class Played {
    final Map given
    final Desk desk
    final StringWriter printed = new StringWriter()
    final List notes = []
    ImageData image, other
    QuPathGUI gui
    Project project
    String thrown
    boolean busyOnReturn

    Played(Map given) {
        this.given = given
        desk = Desk.current = new Desk(doOn: given.do_on ?: [:], answers: given.answers ?: [:])
        image = Cases.imageOf(given.image)
        other = Cases.imageOf(given.other_image)
        if (given.project != null) {
            project = new Project()
            given.project.each { project.add(Cases.imageOf(it)) }
            project.imageList.eachWithIndex { entry, index -> if (given.project[index].damaged) entry.damaged = true }
            if (given.image == null && given.mode != 'headless' && !given.project.isEmpty()) image = project.imageList[0].readImageData()
        }
        QPEx.project = project
        boolean batch = given.mode in ['headless', 'project']
        def viewers = [new QuPathViewer(), new QuPathViewer()]
        Cases.onFx {
            viewers[0].setImageData(batch ? other : image)
            viewers[1].setImageData(batch ? null : given.second_viewer ? other : null)
        }
        gui = given.mode == 'headless' ? null : new QuPathGUI(viewers, Cases.STAGE)
        QPEx.gui = gui
        desk.atTheViewer = { String action -> at(action) }
    }

    void at(String action) {
        def viewer = gui.getViewer()
        if (action == 'open another slide') viewer.setImageData(other)
        else if (action == 'close') viewer.setImageData(null)
        else if (action == 'open again') {
            viewer.setImageData(null)
            viewer.setImageData(project.imageList[0].readImageData())
        } else if (action == 'save an annotation in the second') {
            def entry = project.imageList[1]
            def opened = entry.readImageData()
            def roi = new Roi([[[[0, 0], [90, 0], [90, 90], [0, 0]]]])
            opened.getHierarchy().addObjects([new PathObject(name: 'drawn meanwhile', roi: roi)])
            entry.saveImageData(opened)
        } else if (action == 'damage the second') project.imageList[1].damaged = true
        else throw new IllegalArgumentException(action)
    }

    Map play() {
        switch (given.mode) {
            case 'menu':
                run(true, [:])
                desk.notices.clear()
                doing(given.item == null ? [] : [[item: given.item], [wait: 'dialog']])
                break
            case 'editor':
                run(false, [args: given.args as String[]])
                if (thrown == null) doing([[wait: 'dialog']])
                break
            default:
                batch()
        }
        doing(given.steps ?: [])
        Cases.onFx { Window.getWindows().findAll { it instanceof Stage && it.getOwner() != null }.each { it.hide() } }
        int stayed = threadsThatStay()  // a window that goes may put contours back
        [image: Cases.described(image), other: Cases.described(other), shown: Cases.described(gui?.getImageData()),
         project: project?.imageList?.collect { Cases.described(it.peek()) + [saves: it.saves, closes: it.peek().getServer().closes] },
         dialogs: desk.dialogs, notices: desk.notices, questions: desk.questions, messages: desk.messages, shares: desk.shares,
         errors: desk.errors, windows_opened: desk.windowsOpened, windows_closed: desk.windowsClosed, printed: printed.toString(),
         imported: desk.imported, exported: desk.exported, pressed_at_ms: desk.pressedAtMs,
         thrown: thrown, busy_on_return: busyOnReturn, notes: notes, overlay: gui == null ? null : Cases.describedOverlay(gui.getViewer(), null),
         items: gui?.items?.keySet() ?: [], threads: stayed]
    }

    static int threads() { Thread.getAllStackTraces().keySet().findAll { it.name == 'hepamap' && it.isAlive() }.size() }

    /** Of the client; the last line of a thread may come a moment after what a person sees of its work. */
    static int threadsThatStay() {
        long giveUp = System.currentTimeMillis() + 2_000
        while (threads() > 0 && System.currentTimeMillis() < giveUp) Thread.sleep(5)
        threads()
    }

    /**
     * Each image of a batch in turn, each with a script of its own. As in QuPath, an image is saved after its script, and not where the
     * script threw, which QuPath only logs; what is noted is what was saved.
     */
    private void batch() {
        List images = given.batch == null ? [image] : given.batch.collect { Cases.imageOf(it) }
        images.eachWithIndex { ImageData one, int index ->
            def told = ['qupath.script.batchSize': images.size(), 'qupath.script.batchIndex': index, 'qupath.script.batchLast': index == images.size() - 1]
            if (given.args != null) told.args = given.args as String[]
            thrown = null
            run(false, told, one)
            if (given.batch != null) notes << (thrown == null ? Cases.described(one.copy()) : null)
            if (given.batch != null && thrown != null) printed.append("ERROR ${thrown}\n")
        }
    }

    private void run(boolean onFx, Map variables, ImageData batchImage = null) {
        def script = Cases.scriptOf(given.script, variables + ['qupath.script.file': given.script_file ?: '/scripts/hepamap.groovy'], printed)
        def returned = new CountDownLatch(1)
        Runnable run = {
            QPEx.batchImage.set(batchImage)
            try {
                script.run()
            } catch (Throwable error) {
                thrown = error.toString()
                if (!thrown.startsWith('Trouble')) error.printStackTrace()
            }
            QPEx.batchImage.remove()
            busyOnReturn = desk.dialogs.isEmpty()
            returned.countDown()
        }
        onFx ? Platform.runLater(run) : new Thread(run).start()
        if (!returned.await(30, TimeUnit.SECONDS)) desk.errors << 'the script hangs'
    }

    private void doing(List steps) {
        int seen = 0
        steps.each { Map step ->
            if (!desk.errors.isEmpty()) return
            if (step.item != null) Cases.onFx { gui.choose(step.item); busyOnReturn = desk.dialogs.isEmpty() }
            if (step.at != null) Cases.onFx { at(step.at) }
            if (step.press != null) Cases.onFx { Desk.press(windowWith(step.press), step.press) }
            if (step.set != null) Cases.onFx { step.set.each { id, value -> put(id, value) } }
            if (step.unlock != null) image.getHierarchy().objects.findAll { it.name == step.unlock }.each { it.locked = false }
            if (step.hide != null) Cases.onFx { windows().each { it.hide() } }
            if (step.wait == 'dialog') seen = waitForDialog(seen)
            if (step.wait instanceof Number) Thread.sleep(step.wait as long)
            if (step.picture != null) Cases.onFx { Pictures.take(step.picture) }
            if (step.note != null) notes << note(step.note)
            if (step.until != null) waitUntil(step.until)
        }
    }

    private Map note(Map wanted) {
        Cases.onFx {
            def labels = windows().collectMany { it.getScene().getRoot().lookupAll('.label').collect { it.getText() } }.findAll { it }
            def buttons = windows().collectMany { it.getScene().getRoot().lookupAll('.button').collect { [it.getText(), it.isDisabled()] } }
            def texts = windows().collectMany { it.getScene().getRoot().lookupAll('.text-area').collect { it.getText() } }
            [texts: texts, image: Cases.described(gui.getImageData()), overlay: Cases.describedOverlay(gui.getViewer(), wanted.points), labels: labels,
             windows: windows().collect { it.getTitle() }, buttons: buttons, snapshot: wanted.snapshot == null ? null : ends(wanted.snapshot)]
        }
    }

    /** Colours at the left and right end of what has this id, a third of its height below its top. */
    private static List ends(String id) {
        def picture = windows().findResult { it.getScene().lookup('#' + id) }.snapshot(null, null)
        int width = picture.getWidth(), y = picture.getHeight() / 3
        [1, width - 2].collect { x -> [16, 8, 0].collect { (picture.getPixelReader().getArgb(x, y) >> it) & 255 } }
    }

    static List windows() { Window.getWindows().findAll { it instanceof Stage && it.getOwner() != null } }

    static Object windowWith(String text) {
        windows().find { it.getScene().getRoot().lookupAll('.button').any { it.getText() == text } } ?:
            { throw new IllegalStateException("no window has a button ${text}") }()
    }

    static void put(String id, value) {
        def control = windows().findResult { it.getScene().lookup('#' + id) }
        if (control == null) throw new IllegalStateException("there is no ${id}")
        if (control.isDisabled()) return  // a person cannot move it
        if (control.metaClass.respondsTo(control, 'setSelected', boolean)) control.setSelected(value)
        else if (control.metaClass.respondsTo(control, 'setText', String)) control.setText(value)
        else control.setValue(value)
    }

    private int waitForDialog(int seen) {
        long giveUp = System.currentTimeMillis() + 25_000
        while (desk.dialogs.size() <= seen && desk.errors.isEmpty() && System.currentTimeMillis() < giveUp) Thread.sleep(5)
        if (desk.dialogs.size() <= seen) desk.errors << 'no dialog came'
        // What was asked of the JavaFX thread before is done then; twice, for what that asks of it.
        Cases.onFx { }
        Cases.onFx { }
        desk.dialogs.size()
    }

    /** Until a label of a window says so, or a map lies on the slide (`overlay`), or no thread of the client is left (`quiet`). */
    private void waitUntil(String text) {
        long giveUp = System.currentTimeMillis() + 20_000
        while (System.currentTimeMillis() < giveUp) {
            boolean there = (boolean) Cases.onFx {
                text == 'quiet' ? threads() == 0 : text == 'overlay' ? gui.getViewer().getCustomPixelLayerOverlay() != null :
                    windows().any { it.getScene().getRoot().lookupAll('.label').any { it.getText() =~ text } }
            }
            if (there) return
            Thread.sleep(5)
        }
        desk.errors << "never said: ${text}".toString()
    }
}

/** Pictures of the windows, for the documentation; needs javafx.swing. */
class Pictures {
    static void take(String folder) {
        Played.windows().eachWithIndex { Stage stage, int index ->
            def shot = stage.getScene().getRoot().snapshot(null, null)
            def image = Class.forName('javafx.embed.swing.SwingFXUtils').fromFXImage(shot, null)
            javax.imageio.ImageIO.write(image, 'png', new File(folder, stage.getTitle().replaceAll(/\W+/, '-') + '.png'))
        }
    }
}

def answers = System.out
System.setOut(System.err)  // what else prints must not come between
def started = new CountDownLatch(1)
Platform.setImplicitExit(false)
Platform.startup { started.countDown() }
started.await()
Cases.onFx {
    Thread.currentThread().setUncaughtExceptionHandler({ thread, error ->
        error.printStackTrace()
        Desk.current.errors << error.toString()
    } as Thread.UncaughtExceptionHandler)
    Desk.watchWindows()
}
System.in.eachLine('UTF-8') { line ->
    def answer
    try {
        answer = new Played((Map) new JsonSlurper().parseText(line)).play()
    } catch (Throwable error) {
        error.printStackTrace()
        answer = [broken: error.toString(), trace: error.stackTrace.take(12)*.toString()]
    }
    answers.write((JsonOutput.toJson(answer) + '\n').getBytes('UTF-8'))
    answers.flush()
}
System.exit(0)
