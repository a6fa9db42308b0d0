/*
 * Legend: what the colours of the probability map mean, in a small window for as long as the map lies on the slide.
 */
import javafx.application.Platform
import javafx.scene.image.ImageView
import javafx.scene.image.WritableImage
import javafx.scene.layout.Pane
import javafx.scene.paint.Color
import javafx.scene.shape.Line

class Legend {
    static final int WIDTH_PX = 260
    static final int HEIGHT_PX = 14

    /** The colours from 0 to 1, and on them a line at each of these probabilities. */
    static Pane bar(int width, int inset, List probabilities) {
        def image = new WritableImage(width, HEIGHT_PX)
        def pixels = image.getPixelWriter()
        for (int x = 0; x < width; x++) {
            def rgb = Colours.colour(x / (double) (width - 1))
            for (int y = 0; y < HEIGHT_PX; y++) pixels.setColor(x, y, Color.rgb(rgb[0], rgb[1], rgb[2]))
        }
        def pane = new Pane()
        def view = new ImageView(image)
        view.relocate(inset, 0)
        pane.getChildren().add(view)
        probabilities.each { probability ->
            double x = inset + width * (probability as double)
            def mark = new Line(x, 0, x, HEIGHT_PX + 6)
            mark.setStrokeWidth(2)
            pane.getChildren().add(mark)
        }
        pane
    }

    /** It goes when the map goes; closed before, it leaves the map. */
    static void show(MapOverlay overlay) {
        def bar = bar(WIDTH_PX, 0, [overlay.threshold])
        bar.setId('legend')
        String text = String.format(Locale.ROOT, 'The probability of tumor. Cells below %.3f (the line) fade; where there is no color, there is no ' +
            'tissue.', overlay.threshold)
        def said = Windows.label(text, true)
        said.setPrefWidth(WIDTH_PX + 40)
        def stage = Windows.stage('probability map', Windows.column(Windows.row(Windows.label('0'), bar, Windows.label('1')), said,
            Windows.label('For Research Use Only. Not for use in diagnostic procedures.', true)))
        stage.setResizable(false)
        overlay.onRemoved = { Platform.runLater { stage.close() } }
        stage.show()
    }
}
