/*
 * Slide: does the server see the file that is open here? Where it does not, the file can be sent: in pieces, going on after a cut.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import java.util.zip.CRC32
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

class SlideOnServer {
    static final List UNSEEN = ['slide_not_found', 'slide_not_allowed', 'slide_not_readable', 'path_not_mapped', 'outside_roots']

    /** The slide as a request names it: {path} or {upload}. */
    static Map find(imageData, ServerCalls calls, Closure mayUpload) {
        String local = OpenImage.localPath(imageData)
        Map seen = resolve(imageData, calls)
        if (seen.reason == null) return [path: HepamapSettings.pathOnServer(local)]
        String said = "${seen.reason.message} ${seen.reason.cure ?: ''}".trim()
        Path file = Paths.get(local)
        if (seen.reason.code in UNSEEN && HepamapSettings.text('upload') != 'never' && Files.isRegularFile(file)) {
            calls.work.tell('The server does not see this file')
            if (mayUpload.call(SlideUpload.size(file))) return [upload: new SlideUpload(calls, file).send()]
        }
        throw new Refused(Reasons.problemText(seen.reason.code, said, calls.server), 200, seen.reason.code)
    }

    /** What the server says about the file of this image. */
    static Map resolve(imageData, ServerCalls calls) {
        String path = HepamapSettings.pathOnServer(OpenImage.localPath(imageData))
        calls.work.tell('Looking for the slide on the server')
        calls.json('POST', '/api/v1/slides/resolve', [path: path] + OpenImage.clientView(imageData.getServer()))
    }
}

/** A resumable upload (tus 1.0); which one belongs to which file is remembered, so that it goes on even after QuPath was closed. */
class SlideUpload {
    static int PIECE_BYTES = 8 * 1024 * 1024
    static long PAUSE_MS = 2000
    /** Without any progress; longer than a server waits for a client that went silent, and keeps the upload locked for it (60 s). */
    static long GIVE_UP_MS = 150_000
    /** The server waited in vain, is at another offset, or still waits for what was cut: what its HEAD says is where to go on. */
    static final List LIKE_A_CUT = [408, 409, 423]

    final ServerCalls calls
    final Path file

    SlideUpload(ServerCalls calls, Path file) {
        this.calls = calls
        this.file = file
    }

    /** Files that belong together: MRXS has a folder beside it. */
    static List<Path> parts(Path file) {
        String name = file.getFileName().toString()
        if (!name.toLowerCase(Locale.ROOT).endsWith('.mrxs')) return [file]
        Path folder = file.resolveSibling(name[0..-6])
        if (!Files.isDirectory(folder)) return [file]
        List<Path> inside = []
        Files.list(folder).withCloseable { stream -> stream.filter { Files.isRegularFile(it) }.forEach { inside << it } }
        [file] + inside.sort()
    }

    static long size(Path file) { parts(file).collect { Files.size(it) }.sum() as long }

    /** Send it; the id of the upload. */
    String send() {
        List<Path> all = parts(file)
        if (all.size() == 1) return sendFile(file, file.getFileName().toString())
        Path zip = zipped(all)
        try {
            return sendFile(zip, file.getFileName().toString() + '.zip')
        } finally {
            Files.deleteIfExists(zip)
        }
    }

    /** Packed without compression (the pieces are compressed already), the same bytes each time. */
    private Path zipped(List<Path> all) {
        Path zip = Files.createTempFile('hepamap', '.zip')
        new ZipOutputStream(Files.newOutputStream(zip)).withCloseable { out ->
            all.eachWithIndex { Path part, int index ->
                calls.work.tell('Packing the slide', index / (double) all.size())
                def entry = new ZipEntry(file.getParent().relativize(part).toString().replace('\\', '/'))
                entry.setMethod(ZipEntry.STORED)
                entry.setSize(Files.size(part))
                entry.setTime(0)
                entry.setCrc(checksum(part))
                out.putNextEntry(entry)
                Files.copy(part, out)
                out.closeEntry()
            }
        }
        zip
    }

    private static long checksum(Path part) {
        def sum = new CRC32()
        byte[] buffer = new byte[1 << 16]
        Files.newInputStream(part).withCloseable { stream ->
            for (int count = stream.read(buffer); count >= 0; count = stream.read(buffer)) sum.update(buffer, 0, count)
        }
        sum.getValue()
    }

    private String sendFile(Path data, String name) {
        long total = Files.size(data)
        String location = known(total) ?: create(total, name)
        Long offset = offsetOf(location)
        if (offset == null) {
            location = create(total, name)
            offset = 0L
        }
        long movedAt = System.currentTimeMillis()
        while (offset < total) {
            double share = offset / (double) total
            calls.work.tell(String.format(Locale.ROOT, 'Uploading · %.0f %% of %.1f MB', 100 * share, total / 1e6d), share)
            long reached
            try {
                reached = piece(data, location, offset)
            } catch (NoAnswer cut) {
                if (System.currentTimeMillis() - movedAt > GIVE_UP_MS) {
                    throw new Trouble("The upload broke off (${cut.message}) What has arrived is kept for a day: run this again to go on.")
                }
                calls.work.tell('The upload was cut; going on in a moment', share)
                calls.work.rest(Math.max(PAUSE_MS, cut.waitMs))
                reached = kept(location, offset)
            }
            if (reached > offset) movedAt = System.currentTimeMillis()
            offset = reached
        }
        location.tokenize('/').last()
    }

    /** Where to go on after a cut. */
    private long kept(String location, long offset) {
        Long kept
        try {
            kept = offsetOf(location)
        } catch (NoAnswer stillCut) {
            return offset  // the next piece will tell
        }
        if (kept == null) throw new Trouble('The server has forgotten the upload. Run this again to send it anew.')
        kept
    }

    private long piece(Path data, String location, long offset) {
        byte[] bytes
        new RandomAccessFile(data.toFile(), 'r').withCloseable { input ->
            input.seek(offset)
            bytes = new byte[(int) Math.min(PIECE_BYTES, input.length() - offset)]
            input.readFully(bytes)
        }
        def headers = ['Tus-Resumable': '1.0.0', 'Upload-Offset': offset, 'Content-Type': 'application/offset+octet-stream']
        def answer
        try {
            answer = calls.ask('PATCH', location, bytes, ServerCalls.CONTOURS_S, headers)
        } catch (Refused refused) {
            if (refused.status in LIKE_A_CUT) throw new NoAnswer(refused.message)
            throw refused
        }
        answer.headers().firstValue('Upload-Offset').orElse("${offset + bytes.length}") as long
    }

    private String create(long total, String name) {
        String meta = 'filename ' + name.getBytes('UTF-8').encodeBase64()
        def headers = ['Tus-Resumable': '1.0.0', 'Upload-Length': total, 'Upload-Metadata': meta]
        def answer = calls.ask('POST', '/api/v1/uploads', null, ServerCalls.ANSWER_S, headers)
        String location = answer.headers().firstValue('Location').orElse(null)
        if (location == null) throw new Trouble(Reasons.notHepamap(calls.server))
        // The path alone: behind a proxy the server may not know by which name it was called.
        location = new URI(location).getPath()
        remember(total, location)
        location
    }

    /** How far the server has it; null: it knows nothing of it. */
    private Long offsetOf(String location) {
        def answer = calls.finish(calls.begin('HEAD', location, null, ServerCalls.ANSWER_S, ['Tus-Resumable': '1.0.0']))
        if (answer.statusCode() in [404, 410]) return null
        Reasons.requireSuccess(answer, calls)
        answer.headers().firstValue('Upload-Offset').orElse('0') as long
    }

    private String mark(long total) { "${calls.server} ${file} ${total} ${Files.getLastModifiedTime(file).toMillis()}" }

    private static Path memory() { HepamapSettings.folder().resolve('uploads.json') }

    private static Map remembered() {
        try {
            return Files.exists(memory()) ? (Map) new JsonSlurper().parseText(new String(Files.readAllBytes(memory()), 'UTF-8')) : [:]
        } catch (RuntimeException | IOException damaged) {
            return [:]
        }
    }

    private String known(long total) { remembered()[mark(total)] }

    private void remember(long total, String location) {
        Files.createDirectories(HepamapSettings.folder())
        Map all = remembered() + [(mark(total)): location]
        Files.write(memory(), JsonOutput.toJson(all).getBytes('UTF-8'))
    }
}
