/*
 * Verdict window: Accept, Edit, Submit the edited contours, Reject.
 */
import javafx.scene.control.TextField
import javafx.stage.Stage

class VerdictWindow {
    final Object imageData
    final TextField reason = new TextField()
    final def state = Windows.label(' ')
    private Stage stage
    // Of this window: pressing a button twice, or again after a cut, is one verdict.
    private final Map ids = [:].withDefault { UUID.randomUUID().toString() }

    VerdictWindow(imageData) { this.imageData = imageData }

    static void open(imageData) {
        try {
            Thresholds.analysisOf(imageData)
        } catch (Trouble trouble) {
            Windows.show(Detection.failure(trouble.message))
            return
        }
        new VerdictWindow(imageData).show()
    }

    void show() {
        reason.setId('verdict-reason')
        reason.setPromptText('Why')
        reason.setPrefColumnCount(26)
        state.setId('verdict-state')
        state.setPrefWidth(430)
        def content = Windows.column(
            Windows.label("What do you say to the contours on ${OpenImage.title(imageData)}? It is sent as ${HepamapSettings.user()}."),
            Windows.row(Windows.button('Accept') { send('accepted') }, Windows.label('They are right, and nothing else is tumor.', true)),
            Windows.row(Windows.button('Edit') { edit() }, Windows.label('Make copies that you can correct (class Tumor).', true)),
            Windows.row(Windows.button('Submit edited') { send('edited') },
                Windows.label('All annotations of class Tumor are the tumor, and nothing else is.', true)),
            Windows.row(Windows.button('Reject') { send('rejected') }, reason),
            state,
            Windows.button('Close') { stage.close() })
        stage = Windows.stage('verdict', content)
        stage.show()
    }

    private void edit() {
        try {
            int copies = Verdicts.startEdit(imageData)
            state.setText("${copies} copies made. Correct them, draw what is missing with class Tumor, then choose Submit edited.")
        } catch (Trouble trouble) {
            state.setText(trouble.message)
        }
    }

    private void send(String decision) {
        String said = reason.getText() ?: ''
        if (decision == 'rejected' && !said.trim()) {
            state.setText('Say why the contours are rejected, then send it again.')
            return
        }
        if (decision == 'edited' && !confirmedEdit()) return
        def work = new Work()
        Closure then = { Map outcome ->
            if (outcome.failed) state.setText(outcome.text)
            else stage.close()
            Windows.show(outcome)
        }
        // What is sent is read here: the image may change while it is on its way.
        String id = ids["${decision} ${said} ${decision == 'edited' ? Verdicts.body(imageData, decision, said).hashCode() : ''}".toString()]
        Windows.run('Sending the verdict', work, { Verdicts.outcome(imageData, work, decision, said, id) }, then)
    }

    private boolean confirmedEdit() {
        List objects = Verdicts.finalObjects(imageData)
        Windows.confirmed("Send ${objects.size()} annotation${objects.size() == 1 ? '' : 's'} of class Tumor as the tumor of this image?")
    }
}
