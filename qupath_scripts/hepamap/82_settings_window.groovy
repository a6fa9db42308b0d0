/*
 * Settings window: what is in settings.json, and the key.
 */
import javafx.scene.control.CheckBox
import javafx.scene.control.ComboBox
import javafx.scene.control.PasswordField
import javafx.scene.control.TextArea
import javafx.scene.control.TextField
import javafx.scene.layout.GridPane
import javafx.stage.FileChooser
import javafx.stage.Stage

class SettingsWindow {
    final Map fields = [:]
    final GridPane grid = new GridPane()
    private int row = 0
    private Stage stage
    private final def problem = Windows.label('')

    static void open() { new SettingsWindow().show() }

    void show() {
        Map now
        try {
            now = HepamapSettings.stored()
        } catch (Trouble unreadable) {
            Windows.show(Detection.failure(unreadable.message))
            return
        }
        grid.setHgap(8)
        grid.setVgap(6)
        text('server', 'Server', now.server, HepamapSettings.builtInServer ?: HepamapSettings.DEFAULT_URL)
        def key = new PasswordField()
        key.setPromptText(keyPrompt())
        add('key', 'Key', key)
        text('user', 'Your name', now.user, System.getProperty('user.name'))
        text('model', 'Model', now.model, "the server's default")
        text('stride', 'Step, px of the model', now.stride, "the model's default")
        text('threshold', 'Threshold', now.threshold, "the model's default")
        certificate(now.ca_file)
        def folders = new TextArea(foldersText(now.folders))
        folders.setPrefRowCount(3)
        folders.setPromptText('S:/slides = /slides')
        add('folders', 'Folders: here = on the server', folders)
        def preview = new CheckBox('Show a quick coarse result first')
        preview.setSelected(now.preview != false)
        add('preview', '', preview)
        def upload = new ComboBox()
        upload.getItems().addAll('ask', 'never', 'always')
        upload.setValue(now.upload ?: 'ask')
        add('upload', 'Send slides that the server does not see', upload)
        problem.setId('settings-problem')
        def buttons = Windows.row(Windows.button('Save') { save() }, Windows.button('Delete the key') { deleteKey() },
            Windows.button('Close') { stage.close() })
        stage = Windows.stage('settings', Windows.column(grid, Windows.label("Kept in ${HepamapSettings.folder()}", true), problem, buttons))
        stage.show()
    }

    /** What is wrong with the stored key is said in the window, where it can be mended. */
    private String keyPrompt() {
        try {
            return ApiKey.read(HepamapSettings.server()) ? 'a key is stored; leave empty to keep it' : 'none'
        } catch (Trouble wrong) {
            problem.setText(wrong.message)
            return 'a key is stored that cannot be used'
        }
    }

    private void add(String name, String label, control) {
        fields[name] = control
        control.setId("settings-${name}".toString())
        grid.add(Windows.label(label), 0, row)
        grid.add(control, 1, row++)
    }

    private void text(String name, String label, value, String otherwise) {
        def field = new TextField(value?.toString() ?: '')
        field.setPromptText(otherwise)
        field.setPrefColumnCount(28)
        add(name, label, field)
    }

    private void certificate(value) {
        text('ca_file', "Certificates of your organisation", value, 'PEM file; only where the server needs it')
        grid.add(Windows.button('Choose…') {
            def chosen = new FileChooser().showOpenDialog(stage)
            if (chosen != null) fields.ca_file.setText(chosen.getAbsolutePath())
        }, 2, row - 1)
    }

    private void save() {
        try {
            Map settings = read()
            if (settings.ca_file) ServerCalls.trusting(settings.ca_file)
            HepamapSettings.store(settings)
            String server = HepamapSettings.server()
            if (fields.key.getText()?.trim()) ApiKey.write(fields.key.getText(), server)
            else ApiKey.read(server)  // whether it is for this server
            stage.close()
            Windows.tellShortly('Settings saved.')
        } catch (Trouble trouble) {
            problem.setText(trouble.message)
        } catch (IOException failed) {
            problem.setText(unwritable(failed))
        }
    }

    private Map read() {
        Map typed = [:]
        ['server', 'user', 'model', 'ca_file'].each { typed[it] = fields[it].getText()?.trim() }
        typed.stride = number('stride', 'The step') { it as Integer }
        typed.threshold = number('threshold', 'The threshold') { it.replace(',', '.') as Double }
        typed.folders = foldersOf(fields.folders.getText())
        if (!fields.preview.isSelected()) typed.preview = false
        if (fields.upload.getValue() != 'ask') typed.upload = fields.upload.getValue()
        HepamapSettings.stored().findAll { it.key in ['mode', 'min_area_um2', 'opacity'] } + typed
    }

    private Number number(String name, String what, Closure reading) {
        String given = fields[name].getText()?.trim()
        if (!given) return null
        try {
            return reading.call(given)
        } catch (NumberFormatException notOne) {
            throw new Trouble("${what} “${given}” is not a number. Write one, or leave the field empty.")
        }
    }

    static Map foldersOf(String text) {
        Map folders = [:]
        (text ?: '').readLines().findAll { it.trim() }.each { line ->
            int at = line.indexOf('=')
            if (at < 1 || !line.substring(at + 1).trim()) {
                throw new Trouble("“${line.trim()}” does not say which folder is meant. Write one a line: the folder here, =, " +
                    'the folder on the server.')
            }
            folders[line.substring(0, at).trim()] = line.substring(at + 1).trim()
        }
        folders ?: null
    }

    static String foldersText(Map folders) { (folders ?: [:]).collect { "${it.key} = ${it.value}" }.join('\n') }

    private static String unwritable(IOException failed) {
        "Not all could be changed in ${HepamapSettings.folder()} (${failed.getClass().getSimpleName()}: ${failed.message}). Check that the " +
            'folder is yours and can be written, then try again.'
    }

    private void deleteKey() {
        try {
            ApiKey.write('', '')
            fields.key.setPromptText('none')
            problem.setText('The key is deleted.')
        } catch (Trouble trouble) {
            problem.setText(trouble.message)
        } catch (IOException failed) {
            problem.setText(unwritable(failed))
        }
    }
}
