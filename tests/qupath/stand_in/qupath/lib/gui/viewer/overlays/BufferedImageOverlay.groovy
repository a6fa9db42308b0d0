package qupath.lib.gui.viewer.overlays

import java.awt.Graphics2D
import java.awt.RenderingHints
import java.awt.image.BufferedImage
import java.awt.image.ColorModel
import qupath.lib.gui.viewer.ImageInterpolation
import qupath.lib.gui.viewer.OverlayOptions
import qupath.lib.regions.ImageRegion

/** An image stretched over a region. */
class BufferedImageOverlay {
    final OverlayOptions options
    final Map<ImageRegion, BufferedImage> regions = new LinkedHashMap<>()
    private ColorModel colorModel
    ImageInterpolation interpolation = ImageInterpolation.NEAREST

    BufferedImageOverlay(OverlayOptions options, ImageRegion region, BufferedImage image) {
        this.options = options
        regions[region] = image
    }

    void setColorModel(ColorModel model) { colorModel = model }

    ColorModel getColorModel() { colorModel }

    Map<ImageRegion, BufferedImage> getRegionMap() { regions }

    /** What the viewer would paint of the image. */
    BufferedImage painted(int width, int height) {
        def canvas = new BufferedImage(width, height, BufferedImage.TYPE_INT_ARGB)
        Graphics2D graphics = canvas.createGraphics()
        graphics.setRenderingHint(RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_NEAREST_NEIGHBOR)
        regions.each { region, image ->
            def coloured = colorModel == null ? image : new BufferedImage(colorModel, image.getRaster(), false, null)
            graphics.drawImage(coloured, region.getX(), region.getY(), region.getWidth(), region.getHeight(), null)
        }
        graphics.dispose()
        canvas
    }
}
