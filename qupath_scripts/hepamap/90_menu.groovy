/*
 * Menu: what happens when the script is run. With a window it installs the menu; in a batch, or without a window, it detects.
 */
import groovy.json.JsonSlurper
import qupath.lib.gui.scripting.QPEx

class Hepamap {
    static final String MENU = 'Extensions>hepamap>'
    static final Set RUNNING = Collections.synchronizedSet(Collections.newSetFromMap(new IdentityHashMap()))

    /** Where QuPath shows what scripts print. */
    static Object printer = System.out

    static void say(String text) { printer.println(text) }

    static void start(Binding binding, String server) {
        printer = told(binding, 'out') ?: System.out
        HepamapSettings.arguments = [:]
        HepamapSettings.builtInServer = server
        Steps.scriptFile = Steps.ownFile(told(binding, 'qupath.script.file')?.toString())
        List arguments = (told(binding, 'args') ?: []) as List
        def imageData = QPEx.getCurrentImageData()
        if (arguments.isEmpty()) {
            if (isBatch(imageData)) new Batch(binding).detect(imageData)
            else installMenu()
            return
        }
        if (arguments.size() > 1) HepamapSettings.arguments = (Map) new JsonSlurper().parseText(arguments[1].toString())
        command(arguments[0].toString(), imageData, binding)
    }

    static Object told(Binding binding, String name) { binding.hasVariable(name) ? binding.getVariable(name) : null }

    /** In "Run for project" the image is none of the viewer's; `QuPath script` has no window at all. */
    static boolean isBatch(imageData) {
        def gui = QPEx.getQuPath()
        gui == null || (imageData != null && !imageData.is(gui.getImageData()))
    }

    static void command(String name, imageData, Binding binding) {
        switch (name) {
            case 'detect':
                if (isBatch(imageData)) new Batch(binding).detect(imageData)
                else detect(imageData, HepamapSettings.where())
                break
            case 'test':
                if (isBatch(imageData)) Batch.print(ConnectionTest.outcome(new Work(), imageData))
                else testConnection()
                break
            case 'threshold':
                Batch.print(Thresholds.outcome(imageData, Batch.printing(new Work()), HepamapSettings.arguments.threshold as double))
                break
            case 'export':
                Batch.print(ProjectWindow.exported(imageData, new File(HepamapSettings.arguments.folder.toString())))
                break
            default:
                throw new Trouble("hepamap: there is no command “${name}”. There are: detect, threshold, export, test.")
        }
    }

    static void installMenu() {
        def gui = QPEx.getQuPath()
        gui.installImageDataCommand(MENU + 'Detect tumor', { image -> detect(image, 'slide') })
        gui.installImageDataCommand(MENU + 'Detect in selection', { image -> detect(image, 'selection') })
        gui.installImageDataCommand(MENU + 'Adjust threshold…', { image -> ThresholdWindow.open(image) })
        gui.installImageDataCommand(MENU + 'Show or hide probability map', { image -> ThresholdWindow.toggleMap(image) })
        gui.installImageDataCommand(MENU + 'Accept, edit, reject…', { image -> VerdictWindow.open(image) })
        gui.installCommand(MENU + 'Run for project…', { ProjectWindow.open() })
        gui.installImageDataCommand(MENU + 'Export annotations for training…', { image -> ProjectWindow.export(image) })
        gui.installCommand(MENU + 'Settings…', { SettingsWindow.open() })
        gui.installCommand(MENU + 'Test connection', { testConnection() })
        Windows.tellShortly('The menu Extensions > hepamap is there.')
    }

    static void detect(imageData, String where) {
        if (imageData != null && !RUNNING.add(imageData)) {
            Windows.show(Detection.failure('hepamap works on this image already. Wait for it, or cancel it in its window.'))
            return
        }
        def work = new Work()
        Closure ended = { Map outcome ->
            RUNNING.remove(imageData)
            Windows.show(outcome)
        }
        try {
            Map question = Detection.question(imageData, where)
            def detection = new Detection(new Place(imageData), work, false)
            detection.mayUpload = { long bytes -> mayUpload(bytes) }
            Windows.run("Looking for tumor in ${OpenImage.title(imageData)}", work, { detection.outcome(question) }, ended)
        } catch (Trouble trouble) {
            ended.call(Detection.failure(trouble.message))
        }
    }

    static boolean mayUpload(long bytes) {
        if (HepamapSettings.text('upload') == 'always') return true
        Windows.confirmed(String.format(Locale.ROOT, 'The server does not see this file. Send it to the server (%.1f MB)? It is kept there as ' +
            'long as the server keeps uploads.', bytes / 1e6d))
    }

    static void testConnection() {
        def work = new Work()
        def imageData = QPEx.getCurrentImageData()
        Windows.run('Testing the connection', work) { ConnectionTest.outcome(work, imageData) }
    }
}

final String SERVER_URL = ''  // filled in by the server

Hepamap.start(binding, SERVER_URL)
