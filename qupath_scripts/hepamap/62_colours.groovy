/*
 * Colours of the probability map: from dark blue over green to yellow, lighter with each step, so that order is seen without a legend
 * and in most kinds of colour blindness. Index 0 is no data; index v is the probability (v - 1) / 254.
 */
import java.awt.image.IndexColorModel

class Colours {
    static final List ANCHORS = [[38, 24, 92], [44, 82, 150], [32, 140, 146], [104, 190, 98], [248, 228, 62]]
    static final double FADED = 0.12d

    static int indexOf(double probability) { 1 + (int) Math.round(probability * 254) }

    static double probabilityOf(int index) { (index - 1) / 254.0d }

    /** Red, green and blue of a probability, 0 to 255. */
    static List<Integer> colour(double probability) {
        double place = Math.max(0.0d, Math.min(1.0d, probability)) * (ANCHORS.size() - 1)
        int before = Math.min((int) place, ANCHORS.size() - 2)
        double part = place - before
        (0..2).collect { Math.round(ANCHORS[before][it] * (1 - part) + ANCHORS[before + 1][it] * part) as int }
    }

    /** Cells at or above the threshold have this opacity; those below fade. */
    static IndexColorModel model(double threshold, double opacity) {
        byte[] red = new byte[256], green = new byte[256], blue = new byte[256], alpha = new byte[256]
        for (int index = 1; index < 256; index++) {
            double probability = probabilityOf(index)
            List<Integer> rgb = colour(probability)
            red[index] = (byte) rgb[0].intValue()
            green[index] = (byte) rgb[1].intValue()
            blue[index] = (byte) rgb[2].intValue()
            double shown = probability >= threshold - 1e-9 ? opacity : opacity * FADED
            alpha[index] = (byte) Math.round(255 * shown).intValue()
        }
        new IndexColorModel(8, 256, red, green, blue, alpha)
    }
}
