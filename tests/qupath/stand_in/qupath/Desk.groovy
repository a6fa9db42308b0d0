package qupath

import javafx.application.Platform
import qupath.lib.gui.scripting.QPEx

/** What the person in front of QuPath does and sees in one case. */
class Desk {
    static volatile Desk current = new Desk()

    Map doOn = [:]
    int windowsOpened = 0
    int windowsClosed = 0
    final List<Map> dialogs = [].asSynchronized()
    final List<String> messages = [].asSynchronized()
    final List<Double> shares = [].asSynchronized()
    final List<String> errors = [].asSynchronized()

    /** Do what the case wants done when this message is seen: press a button, or open another slide. */
    void afterMessage(String message, Closure press) {
        if (doOn.message == null || !(message =~ doOn.message)) return
        String action = doOn.action
        doOn = [:]
        if (action == 'open another slide') QPEx.shown = QPEx.otherImage
        else press(action)
    }

    void say(String kind, String title, String text) {
        Platform.require()
        dialogs << [kind: kind, title: title, text: text]
    }
}
