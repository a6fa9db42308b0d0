package qupath.lib.objects.classes

class PathClass {
    private static final Map<String, PathClass> KNOWN = [:].asSynchronized()
    final String text

    private PathClass(String text) { this.text = text }

    static PathClass fromString(String text) {
        if (text == null) return null
        if (!KNOWN.containsKey(text)) KNOWN[text] = new PathClass(text)
        KNOWN[text]
    }

    @Override
    String toString() { text }
}
