package qupath.lib.gui

import javafx.stage.Stage
import qupath.Desk
import qupath.lib.gui.viewer.QuPathViewer

/** The main window: viewers, and a menu in which an item of the same path is replaced. */
class QuPathGUI {
    final List<QuPathViewer> viewers
    final Map<String, Map> items = [:]
    final Stage stage

    QuPathGUI(List<QuPathViewer> viewers, Stage stage) {
        this.viewers = viewers
        this.stage = stage
    }

    List<QuPathViewer> getAllViewers() { viewers.asImmutable() }

    QuPathViewer getViewer() { viewers[0] }

    Object getImageData() { viewers[0].getImageData() }

    Stage getStage() { stage }

    Object installCommand(String path, Runnable command) {
        items[path] = [run: { command.run() }, needsImage: false]
    }

    Object installImageDataCommand(String path, java.util.function.Consumer command) {
        items[path] = [run: { command.accept(getImageData()) }, needsImage: true]
    }

    void refreshProject() { Desk.require() }

    /** Choose an item, as a person would: on the JavaFX thread, and only where it is not greyed out. */
    void choose(String name) {
        def item = items.find { it.key.tokenize('>').last() == name }?.value
        if (item == null) throw new IllegalStateException("no item ${name}")
        if (item.needsImage && getImageData() == null) throw new IllegalStateException("${name} is greyed out")
        item.run.call()
    }
}
