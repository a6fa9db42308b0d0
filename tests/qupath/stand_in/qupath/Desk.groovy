package qupath

import javafx.application.Platform
import javafx.collections.ListChangeListener
import javafx.event.Event
import javafx.scene.control.ButtonBase
import javafx.stage.Stage
import javafx.stage.Window
import javafx.stage.WindowEvent

/** What the person in front of QuPath does and sees in one case. */
class Desk {
    static volatile Desk current = new Desk()

    Map doOn = [:]
    Map answers = [:]
    Closure atTheViewer = { String action -> }
    volatile int windowsOpened = 0
    volatile int windowsClosed = 0
    final List<Map> dialogs = [].asSynchronized()
    final List<String> notices = [].asSynchronized()
    final List<String> questions = [].asSynchronized()
    final List<String> messages = [].asSynchronized()
    final List<Double> shares = [].asSynchronized()
    final List<String> errors = [].asSynchronized()
    /** Polygons that were read from GeoJSON and written to it. */
    final List imported = [].asSynchronized()
    final List exported = [].asSynchronized()
    /** When Cancel was pressed last, by the clock. */
    volatile Long pressedAtMs = null

    /** See windows come and go, and what the one with the progress says. Called once. */
    static void watchWindows() {
        Window.getWindows().addListener({ change ->
            while (change.next()) {
                change.getAddedSubList().each { Window window -> current.opened(window) }
                current.windowsClosed += change.getRemoved().findAll { it instanceof Stage && it.getOwner() != null }.size()
            }
        } as ListChangeListener)
    }

    private void opened(Window window) {
        if (!(window instanceof Stage) || window.getOwner() == null) return
        windowsOpened++
        def label = window.getScene().lookup('#progress-message')
        if (label == null) return
        def bar = window.getScene().lookup('.progress-bar')
        label.textProperty().addListener({ observed, before, text ->
            messages << text
            // The share is set right after the message.
            Platform.runLater { shares << bar.getProgress() }
            afterMessage(text, window)
        } as javafx.beans.value.ChangeListener)
    }

    /** Do what the case wants done when this message is seen: press Cancel, close the window, or do something at the viewer. */
    private void afterMessage(String message, Stage window) {
        if (doOn.message == null || !(message =~ doOn.message)) return
        String action = doOn.action
        doOn = [:]
        pressedAtMs = System.currentTimeMillis()
        if (action == 'CANCEL') press(window, 'Cancel')
        else if (action == 'X') Event.fireEvent(window, new WindowEvent(window, WindowEvent.WINDOW_CLOSE_REQUEST))
        else atTheViewer.call(action)
    }

    static void press(Window window, String text) {
        def button = window.getScene().getRoot().lookupAll('.button').find { it instanceof ButtonBase && it.getText() == text }
        if (button == null) throw new IllegalStateException("no button ${text}")
        button.fire()
    }

    static void require() {
        if (!Platform.isFxApplicationThread()) throw new IllegalStateException("Not on FX application thread; currentThread = ${Thread.currentThread().name}")
    }

    void say(String kind, String title, String text) {
        require()
        dialogs << [kind: kind, title: title, text: text]
    }
}
