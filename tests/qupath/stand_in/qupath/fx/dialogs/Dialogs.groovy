package qupath.fx.dialogs

import qupath.Desk

class Dialogs {
    static void showErrorMessage(String title, String text) { Desk.current.say('error', title, text) }

    static void showPlainMessage(String title, String text) { Desk.current.say('plain', title, text) }

    static void showInfoNotification(String title, String text) { Desk.current.notices << text }

    static boolean showConfirmDialog(String title, String text) {
        Desk.require()
        Desk.current.questions << text
        Desk.current.answers.confirm ?: false
    }
}
