package qupath.lib.images.servers

/** An image as a reader of files shows it; `slide` as in the tests: level0, bounds, no_crop, um_per_px … */
class FileImageServer {
    final Map slide

    FileImageServer(Map slide) { this.slide = slide }

    // Slides with bounds are shown cropped to them, unless --no-crop is given.
    private List size() { slide.bounds != null && !slide.no_crop ? slide.bounds[2, 3] : slide.level0 }

    int getWidth() { size()[0] }

    int getHeight() { size()[1] }

    int nZSlices() { slide.planes ?: 1 }

    int nTimepoints() { 1 }

    int closes = 0

    void close() { closes++ }

    Collection<URI> getURIs() { slide.uris.collect { new URI(it) } }

    String getPath() { "OpenslideImageServer: ${slide.uris[0]}${slide.series == null ? '' : "[--series, ${slide.series}]"}" }

    Object getBuilder() {
        switch (slide.builder) {
            case 'none': return null
            case 'rotated': return new RotatedImageServerBuilder()
            case 'flipped': return new AffineTransformImageServerBuilder()
            default: return new DefaultImageServerBuilder()
        }
    }

    Metadata getMetadata() { new Metadata(name: slide.name) }

    PixelCalibration getPixelCalibration() { new PixelCalibration(um: slide.um_per_px == null ? Double.NaN : slide.um_per_px as double) }

    static class DefaultImageServerBuilder { }

    static class RotatedImageServerBuilder { }

    static class AffineTransformImageServerBuilder { }

    static class Metadata {
        String name
    }

    static class PixelCalibration {
        double um

        double getPixelWidthMicrons() { um }

        double getPixelHeightMicrons() { um }
    }
}
