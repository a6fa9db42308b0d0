/*
 * Settings: the server's address, what to ask of it, and the key. All of it lies in the user's own folder ~/.hepamap, so that it
 * outlives QuPath's versions and never gets into a project: settings.json, and the key alone in a file that nobody else can read.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import java.nio.file.attribute.AclEntry
import java.nio.file.attribute.AclEntryPermission
import java.nio.file.attribute.AclEntryType
import java.nio.file.attribute.AclFileAttributeView
import java.nio.file.attribute.PosixFileAttributeView
import java.nio.file.attribute.PosixFilePermissions

/** What a person can understand and mend; its text is shown as it is. */
class Trouble extends Exception {
    Trouble(String message) { super(message, null, false, false) }
}

/** The server could not be asked; it may be possible a moment later. */
class NoAnswer extends Trouble {
    /** How long the server asks to be left alone. */
    final long waitMs

    NoAnswer(String message, long waitMs = 0) {
        super(message)
        this.waitMs = waitMs
    }
}

/** The server says no: an answer of hepamap with a code. */
class Refused extends Trouble {
    final int status
    final String code

    Refused(String message, int status, String code) {
        super(message)
        this.status = status
        this.code = code
    }
}

/** A person pressed Cancel, or closed the image. */
class Cancelled extends Exception {
    Cancelled() { super('cancelled', null, false, false) }
}

class HepamapSettings {
    static final String DEFAULT_URL = 'http://127.0.0.1:8000'
    static final String WHERE_ADDRESS = 'The address is in hepamap > Settings…, or in the environment variable HEPAMAP_URL.'
    /** Written into the script by the server that it was downloaded from. */
    static String builtInServer = ''
    /** Given with one run: they stand above all others. */
    static Map arguments = [:]

    static Path folder() {
        Paths.get(System.getenv('HEPAMAP_HOME') ?: System.getProperty('user.home') + File.separator + '.hepamap')
    }

    /** What the person has set: server, model, stride, mode, threshold, folders, ca_file, user, preview, upload, opacity. */
    static Map stored() {
        Path file = folder().resolve('settings.json')
        if (!Files.exists(file)) return [:]
        try {
            def read = new JsonSlurper().parseText(new String(Files.readAllBytes(file), 'UTF-8'))
            if (read instanceof Map) return read
        } catch (RuntimeException | IOException unreadable) {
            // said below
        }
        throw new Trouble("The settings in ${file} cannot be read. Mend or delete that file, then set them again in hepamap > Settings….")
    }

    static void store(Map settings) {
        Files.createDirectories(folder())
        Map kept = settings.findAll { it.value != null && it.value != '' }
        Files.write(folder().resolve('settings.json'), JsonOutput.prettyPrint(JsonOutput.toJson(kept)).getBytes('UTF-8'))
    }

    static Object get(String name) { arguments.containsKey(name) ? arguments[name] : stored()[name] }

    static String text(String name) { get(name)?.toString()?.trim() ?: null }

    static String user() { text('user') ?: System.getProperty('user.name') }

    /** Which region a run is about, where its caller says so: slide, selection, auto, or region. */
    static String where() { arguments.where?.toString() ?: 'auto' }

    /** The region itself, as GeoJSON, where a run is about `region`. */
    static Map region() {
        if (arguments.region instanceof Map && arguments.region.features instanceof List) return arguments.region
        throw new Trouble('Where is said to be region, but none is given. Give it as “region”: a FeatureCollection of polygons in GeoJSON, in px ' +
            'of the image.')
    }

    /** A quick coarse pass comes before the fine one. */
    static boolean preview() { get('preview') != false }

    static String server() {
        List known = [arguments.server, stored().server, System.getenv('HEPAMAP_URL'), builtInServer, DEFAULT_URL]
        String given = known.collect { it?.toString()?.trim() }.find { it }
        String address = given.contains('://') ? given : "http://${given}"
        address = address.replaceAll(/\s+/, '').replaceAll('/+$', '').replaceAll('/(api(/v1)?|docs|qupath(/hepamap[.]groovy)?)$', '')
            .replaceAll('/+$', '')
        try {
            URI uri = new URI(address)
            if (!(given =~ /\S\s+\S/) && uri.getHost() && uri.getScheme().toLowerCase(Locale.ROOT) in ['http', 'https']) return address
        } catch (URISyntaxException notOne) {
            // said below
        }
        throw new Trouble("“${given}” is not the address of a server. Write it like http://server:8000. ${WHERE_ADDRESS}")
    }

    /** The path under which the server sees a local file, by the person's own table; of folders in one another, the inner one counts. */
    static String pathOnServer(String local) {
        String path = local.replace('\\', '/')
        Map folders = get('folders') ?: [:]
        for (folder in folders.sort { -it.key.toString().length() }) {
            String here = folder.key.replace('\\', '/').replaceAll('/+$', '') + '/'
            if (path.regionMatches(true, 0, here, 0, here.length())) {
                return folder.value.replaceAll('/+$', '') + '/' + path.substring(here.length())
            }
        }
        local
    }
}

/** The key to the server: from the environment, or from a file that only its owner can read; its second line says for which server. */
class ApiKey {
    static Path file() { HepamapSettings.folder().resolve('key') }

    /** The key for this server; null: there is none. One that was stored for another server is not given away. */
    static String read(String server) {
        String given = System.getenv('HEPAMAP_API_KEY')?.trim()
        if (given) return usable(given)
        List<String> lines = stored()
        if (lines.isEmpty()) return null
        if (lines.size() > 1 && !lines[1].equalsIgnoreCase(server)) {
            throw new Trouble("The stored key is for ${lines[1]}, so it was not sent to ${server}. If that is your server, put its key into " +
                'hepamap > Settings….')
        }
        usable(lines[0])
    }

    private static List<String> stored() {
        if (!Files.exists(file())) return []
        protect()
        try {
            return new String(Files.readAllBytes(file()), 'UTF-8').readLines()*.trim().findAll { it }
        } catch (IOException unreadable) {
            throw new Trouble("The file with the key, ${file()}, cannot be read (${unreadable.message}). Delete it, then put the key into " +
                'hepamap > Settings….')
        }
    }

    static void write(String key, String server) {
        Files.createDirectories(HepamapSettings.folder())
        if (!key?.trim()) {
            Files.deleteIfExists(file())
            return
        }
        usable(key.trim())
        if (!Files.exists(file())) Files.createFile(file())
        protect()  // before the key is in it
        Files.write(file(), "${key.trim()}\n${server}\n".getBytes('UTF-8'))
    }

    static String usable(String key) {
        if (key ==~ /[\x21-\x7e]+/) return key
        throw new Trouble('The key has characters in it that no key has (blanks, line ends, letters with accents). Copy it again into ' +
            'hepamap > Settings….')
    }

    /** Take the rights of all others away; whoever cannot is told. */
    static void protect() {
        try {
            if (Files.getFileAttributeView(file(), PosixFileAttributeView) != null) {
                def only = PosixFilePermissions.fromString('rw-------')
                if (Files.getPosixFilePermissions(file()) != only) Files.setPosixFilePermissions(file(), only)
                return
            }
            def view = Files.getFileAttributeView(file(), AclFileAttributeView)
            if (view == null) return
            def mine = AclEntry.newBuilder().setType(AclEntryType.ALLOW).setPrincipal(view.getOwner())
                .setPermissions(EnumSet.allOf(AclEntryPermission)).build()
            if (view.getAcl() != [mine]) view.setAcl([mine])
        } catch (IOException | UnsupportedOperationException failed) {
            throw new Trouble("The file with the key, ${file()}, can be read by others, and that could not be changed " +
                "(${failed.message}). Make it readable for you alone, or use the environment variable HEPAMAP_API_KEY.")
        }
    }
}
