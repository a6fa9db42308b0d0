package org.controlsfx.dialog

import javafx.application.Platform
import javafx.concurrent.Task
import javafx.event.ActionEvent
import javafx.event.EventHandler
import javafx.scene.control.ButtonType
import qupath.Desk

/** Opens when its task begins, closes when it ends; presses its own button where the test asks for it. */
class ProgressDialog {
    String title
    String headerText
    Object owner
    EventHandler onCloseRequest
    final Pane dialogPane = new Pane()

    ProgressDialog(Task task) {
        Platform.require()
        task.listen { String what, Object value ->
            Desk desk = Desk.current
            if (what == 'begin') desk.windowsOpened++
            if (what == 'end') desk.windowsClosed++
            if (what == 'progress') desk.shares << value
            if (what == 'message') {
                desk.messages << value
                desk.afterMessage(value as String) { button -> press(button) }
            }
        }
    }

    void initOwner(Object window) { owner = window }

    private void press(String button) {
        if (button == 'X') {
            onCloseRequest.handle(null)
            return
        }
        def event = new ActionEvent()
        dialogPane.lookupButton(ButtonType.CANCEL).filter.handle(event)
        if (!event.consumed) Desk.current.errors << 'the button closed the window by itself'
    }

    static class Pane {
        final List<ButtonType> buttonTypes = []
        private final Map<ButtonType, Button> buttons = [:]

        Button lookupButton(ButtonType type) {
            if (!(type in buttonTypes)) return null
            if (!buttons.containsKey(type)) buttons[type] = new Button()
            buttons[type]
        }
    }

    static class Button {
        EventHandler filter

        void addEventFilter(String type, EventHandler handler) {
            assert type == ActionEvent.ACTION
            filter = handler
        }
    }
}
