/*
 * Threshold window: a slider over the colours of the map, with the model's operating points beside it.
 */
import javafx.application.Platform
import javafx.scene.control.Slider
import javafx.scene.layout.Pane
import javafx.stage.Stage

class ThresholdWindow {
    static final int WIDTH_PX = 540
    /** The slider's track is so much shorter than the slider, on each side. */
    static final int INSET_PX = 8

    final ThresholdSession session
    final Slider slider = new Slider(0.0d, 1.0d, 0.5d)
    final def value = Windows.label('')
    final def state = Windows.label(' ')
    /** What moves the threshold. */
    private List choices = []
    private Stage stage
    private boolean kept = false
    /** The server is being told; what comes of it decides what stays, also where the window goes meanwhile. */
    private boolean keeping = false
    private boolean left = false
    private boolean closed = false

    ThresholdWindow(ThresholdSession session) { this.session = session }

    /** Fetch the map of an image, lay it on the slide and open the window. */
    static void open(imageData) {
        fetched(imageData) { Place place, ServerCalls calls, MapOverlay overlay ->
            new ThresholdWindow(new ThresholdSession(place, calls, overlay.map, overlay)).show()
        }
    }

    /** Show the map without the window, or take it off. */
    static void toggleMap(imageData) {
        def shown = MapOverlay.on(new Place(imageData).viewer())
        if (shown != null) shown.remove()
        else fetched(imageData) { place, calls, overlay ->
            Legend.show(overlay)
            Windows.tellShortly('The probability map is shown. Key C hides and shows it, too; the opacity slider fades it.')
        }
    }

    private static void fetched(imageData, Closure then) {
        def work = new Work()
        def place = new Place(imageData)
        Closure job = {
            try {
                String analysis = Thresholds.analysisOf(imageData)
                def calls = new ServerCalls(work)
                calls.connect()
                work.tell('Fetching the probability map')
                return [calls: calls, map: ProbabilityMap.fetch(calls, analysis)]
            } catch (Cancelled cancelled) {
                return [title: 'cancelled', text: 'You cancelled.']
            } catch (Trouble trouble) {
                return Detection.failure(trouble.message)
            }
        }
        Windows.run('Fetching the probability map', work, job) { Map outcome ->
            if (outcome.map == null) {
                Windows.show(outcome)
                return
            }
            def viewer = place.viewer()
            if (viewer == null) return  // closed meanwhile
            try {
                Thresholds.requireCurrent(viewer.getImageData(), outcome.map.analysis)
            } catch (Trouble outrun) {
                Windows.show(Detection.failure(outrun.message))
                return
            }
            def overlay = new MapOverlay(viewer, outcome.map)
            overlay.show(outcome.map.facts.threshold as double)
            then.call(place, outcome.calls, overlay)
        }
    }

    void show() {
        slider.setId('threshold-slider')
        slider.setMinWidth(WIDTH_PX)
        slider.setMaxWidth(WIDTH_PX)
        slider.setMajorTickUnit(0.1d)
        slider.setShowTickMarks(true)
        slider.setShowTickLabels(true)
        slider.setValue(session.threshold)
        describe()
        slider.valueProperty().addListener({ observed, was, now ->
            session.moveTo(now as double)
            describe()
        } as javafx.beans.value.ChangeListener)
        session.tell = { String text -> Platform.runLater { state.setText(text) } }
        session.overlay.onRemoved = { Platform.runLater { leave() } }
        state.setId('threshold-state')
        state.setPrefWidth(WIDTH_PX)
        def buttons = Windows.row(Windows.button('Use this threshold') { keep() }, Windows.button('Back to the first') { leave() })
        choices = [slider, points()]
        def content = Windows.column(value, marks(), *choices, state, buttons,
            Windows.label('For Research Use Only. Not for use in diagnostic procedures.', true))
        stage = Windows.stage('threshold', content)
        stage.setOnHidden { leave() }  // in whatever way it goes, with QuPath's own window too
        stage.show()
    }

    private void describe() {
        value.setText(String.format(Locale.ROOT, 'Tumor is what has a probability of %.3f or more. Cells below fade.', session.threshold))
    }

    /** The colours above the slider, and on them the operating points. */
    private Pane marks() {
        Legend.bar(WIDTH_PX - 2 * INSET_PX, INSET_PX, (session.map.facts.operating_points ?: []).collect { it.threshold })
    }

    /** The model's named thresholds, each a button that moves the slider there. */
    private Object points() {
        List known = session.map.facts.operating_points ?: []
        if (known.isEmpty()) return Windows.label('The model names no operating points.', true)
        Windows.column(*known.collect { Map point ->
            Windows.row(Windows.button(String.format(Locale.ROOT, '%s %.3f', point.name, point.threshold as double)) {
                slider.setValue(point.threshold as double)
            }, Windows.label(measured(point), true))
        })
    }

    static String measured(Map point) {
        if (point.sensitivity == null || point.specificity == null) return 'not measured'
        String.format(Locale.ROOT, 'sensitivity %.1f %%, specificity %.1f %%, as measured for this model',
            100 * (point.sensitivity as double), 100 * (point.specificity as double))
    }

    private void keep() {
        if (keeping || closed) return
        double wanted = session.threshold
        keeping = true
        choices.each { it.setDisable(true) }
        state.setText('Telling the server')
        session.keep(wanted) { String wrong ->
            Platform.runLater {
                keeping = false
                choices.each { it.setDisable(false) }
                if (wrong != null) {
                    state.setText(wrong)
                    if (left) {
                        leave()
                        Windows.show(Detection.failure(wrong))
                    }
                    return
                }
                kept = true
                leave()
                Windows.tellShortly(String.format(Locale.ROOT, 'The threshold %.3f is kept, on the image and on the server.',
                    wanted))
            }
        }
    }

    private void leave() {
        if (closed) return
        if (keeping) {
            left = true
            return
        }
        closed = true
        if (!kept) session.back()
        session.overlay.onRemoved = { }
        if (!kept) session.overlay.remove()
        else if (MapOverlay.on(session.overlay.viewer).is(session.overlay)) Legend.show(session.overlay)
        session.close()
        stage?.close()
    }
}
