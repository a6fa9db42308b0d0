package qupath.fx.dialogs

import qupath.Desk

class Dialogs {
    static void showErrorMessage(String title, String text) { Desk.current.say('error', title, text) }

    static void showPlainMessage(String title, String text) { Desk.current.say('plain', title, text) }
}
