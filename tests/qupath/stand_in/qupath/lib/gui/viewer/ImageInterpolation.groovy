package qupath.lib.gui.viewer

enum ImageInterpolation { NEAREST, BILINEAR }
