package qupath.lib.common

import java.nio.file.Path
import java.nio.file.Paths

class GeneralTools {
    static Path toPath(URI uri) { uri.scheme == 'file' ? Paths.get(new URI('file', null, uri.path, null)) : null }
}
