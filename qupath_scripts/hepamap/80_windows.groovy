/*
 * Windows: threads, messages, and the small window that shows how far a run is.
 */
import java.util.concurrent.CountDownLatch
import javafx.application.Platform
import javafx.geometry.Insets
import javafx.geometry.Pos
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.layout.HBox
import javafx.scene.layout.VBox
import javafx.stage.Stage
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.scripting.QPEx

class Windows {
    static void onFx(Closure work) {
        if (Platform.isFxApplicationThread()) work.call()
        else Platform.runLater { work.call() }
    }

    /** The answer of a question that a person is asked, from any thread. */
    static Object answerOnFx(Closure question) {
        if (Platform.isFxApplicationThread()) return question.call()
        def answered = new CountDownLatch(1)
        Object answer = null
        Platform.runLater {
            try {
                answer = question.call()
            } finally {
                answered.countDown()
            }
        }
        answered.await()
        answer
    }

    static Thread inBackground(Closure work) {
        def thread = new Thread({ work.call() } as Runnable, 'hepamap')
        thread.setDaemon(true)
        thread.start()
        thread
    }

    static void show(Map outcome) {
        onFx {
            String title = "hepamap: ${outcome.title}".toString()
            String text = outcome.text.toString()
            if (outcome.failed || outcome.alarming) Dialogs.showErrorMessage(title, text)
            else Dialogs.showPlainMessage(title, text)
        }
    }

    static void tellShortly(String text) { onFx { Dialogs.showInfoNotification('hepamap', text) } }

    static boolean confirmed(String text) { answerOnFx { Dialogs.showConfirmDialog('hepamap', text) } }

    static Stage stage(String title, javafx.scene.Parent content) {
        def stage = new Stage()
        def owner = QPEx.getQuPath()?.getStage()
        if (owner != null) stage.initOwner(owner)
        stage.setTitle("hepamap: ${title}")
        content.setPadding(new Insets(12))
        stage.setScene(new Scene(content))
        stage
    }

    static Button button(String text, Closure pressed) {
        def button = new Button(text)
        button.setOnAction { pressed.call() }
        button
    }

    static HBox row(Object... nodes) {
        def row = new HBox(8)
        row.setAlignment(Pos.CENTER_LEFT)
        row.getChildren().addAll(nodes as List)
        row
    }

    static VBox column(Object... nodes) {
        def column = new VBox(8)
        column.getChildren().addAll(nodes as List)
        column
    }

    static Label label(String text, boolean small = false) {
        def label = new Label(text)
        label.setWrapText(true)
        if (small) label.setStyle('-fx-font-size: 90%; -fx-opacity: 0.8;')
        label
    }

    /** Run work in the background with a window that shows how far it is; its outcome is shown, and given to `then`. */
    static void run(String header, Work work, Closure job, Closure then = { outcome -> show(outcome) }) {
        onFx {
            def window = new ProgressWindow(header, work)
            inBackground {
                Map outcome
                try {
                    outcome = (Map) job.call()
                } catch (Throwable error) {
                    outcome = Detection.failure(Reasons.unforeseen(error))
                }
                Platform.runLater {
                    window.close()
                    then.call(outcome)
                }
            }
        }
    }
}

class ProgressWindow {
    final Stage stage
    final Label message = Windows.label('Starting')
    final ProgressBar bar = new ProgressBar(-1.0d)

    ProgressWindow(String header, Work work) {
        def head = Windows.label(header)
        head.setStyle('-fx-font-weight: bold;')
        bar.setPrefWidth(380)
        message.setPrefWidth(380)
        message.setId('progress-message')
        def cancel = new Button('Cancel')
        cancel.setOnAction {
            work.cancelled = true
            cancel.setDisable(true)
            message.setText('Stopping')
        }
        stage = Windows.stage('working', Windows.column(head, message, bar, cancel))
        stage.setResizable(false)
        stage.setOnCloseRequest { event ->
            event.consume()
            cancel.fire()
        }
        work.onTell = { String text, double share ->
            Platform.runLater {
                if (work.cancelled) return
                message.setText(text)
                bar.setProgress(share < 0 ? ProgressBar.INDETERMINATE_PROGRESS : share)
            }
        }
        stage.show()
    }

    void close() { stage.close() }
}
