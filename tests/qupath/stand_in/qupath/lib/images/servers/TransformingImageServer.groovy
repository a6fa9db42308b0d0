package qupath.lib.images.servers

/** Rotated and cropped images: they report the URI of the original file. */
class TransformingImageServer extends FileImageServer {
    TransformingImageServer(Map slide) { super(slide) }
}
