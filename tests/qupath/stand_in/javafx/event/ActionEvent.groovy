package javafx.event

class ActionEvent {
    static final String ACTION = 'ACTION'
    boolean consumed = false

    void consume() { consumed = true }
}
