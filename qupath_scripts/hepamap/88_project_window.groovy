/*
 * Project windows: which images, and the table at the end.
 */
import javafx.scene.control.CheckBox
import javafx.scene.control.ScrollPane
import javafx.scene.control.TextArea
import javafx.stage.DirectoryChooser
import qupath.lib.gui.scripting.QPEx

class ProjectWindow {
    static void open() {
        def project = QPEx.getProject()
        if (project == null || project.getImageList().isEmpty()) {
            Windows.show(Detection.failure('No project with images is open. Open one, or use hepamap > Detect tumor for one image.'))
            return
        }
        List boxes = project.getImageList().collect { entry ->
            def box = new CheckBox(entry.getImageName())
            box.setSelected(true)
            box.setUserData(entry)
            box
        }
        def list = new ScrollPane(Windows.column(*boxes))
        list.setPrefSize(420, 260)
        def stage
        def buttons = Windows.row(
            Windows.button('All') { boxes.each { it.setSelected(true) } },
            Windows.button('None') { boxes.each { it.setSelected(false) } },
            Windows.button('Run') {
                stage.close()
                run(project, boxes.findAll { it.isSelected() }.collect { it.getUserData() })
            })
        stage = Windows.stage('run for project', Windows.column(
            Windows.label('Look for tumor in these images. What was done before by the same model and parameters is left alone.'), list, buttons))
        stage.show()
    }

    private static void run(project, List entries) {
        if (entries.isEmpty()) return
        def work = new Work()
        Windows.run('Looking for tumor in the project', work, { new ProjectRun(project, work).outcome(entries) }) { Map outcome ->
            QPEx.getQuPath()?.refreshProject()
            if (outcome.rows == null) Windows.show(outcome)
            else table(outcome)
        }
    }

    private static void table(Map outcome) {
        def text = new TextArea(outcome.text)
        text.setId('project-table')
        text.setEditable(false)
        text.setStyle('-fx-font-family: monospace;')
        text.setPrefSize(760, 280)
        def stage = Windows.stage("run for project, ${outcome.title}", Windows.column(text,
            Windows.label('For Research Use Only. Not for use in diagnostic procedures.', true)))
        stage.show()
    }

    static void export(imageData) {
        def chooser = new DirectoryChooser()
        chooser.setTitle('Folder for the annotations')
        def folder = chooser.showDialog(QPEx.getQuPath().getStage())
        if (folder == null) return
        def work = new Work()
        Windows.run('Writing the annotations', work, { exported(imageData, folder) })
    }

    static Map exported(imageData, File folder) {
        try {
            return [title: 'annotations written', text: AnnotationExport.write(imageData, folder.toPath())]
        } catch (Trouble trouble) {
            return Detection.failure(trouble.message)
        }
    }
}
