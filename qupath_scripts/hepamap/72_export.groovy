/*
 * Export: a person's annotations as GeoJSON, with a table that hepamap's training reads. What a person wrote into the table stays.
 */
import java.nio.charset.CharacterCodingException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import qupath.lib.io.PathIO

class AnnotationExport {
    static final String FRAME_UNKNOWN = 'The server could not say from where the coordinates of this slide count, so the table says qupath in ' +
        'its column frame: from the corner of what QuPath shows. Where QuPath opened the slide with --no-crop, write level0 there.'

    /** Write one image's annotations into a folder; the sentence that says what to do with them. */
    static String write(imageData, Path folder) {
        String slide = OpenImage.localPath(imageData)
        List objects = imageData.getHierarchy().getAnnotationObjects().findAll {
            it.getPathClass() != null && it.getPathClass().toString() != OpenImage.TUMOUR_CLASS && it.getROI() != null && it.getROI().isArea()
        }
        if (objects.isEmpty()) {
            throw new Trouble('There are no annotations with a class on this image, apart from those of hepamap. Give yours a class, such as ' +
                'Tumor or Non-tumor, then export them again.')
        }
        Files.createDirectories(folder)
        def table = CohortTable.read(folder.resolve('cohort.csv'))
        String name = table.nameFor(slide, OpenImage.title(imageData).replaceAll(/[\\\/:*?"<>|,;]+/, '_'))
        String frame = frameOf(imageData)
        PathIO.exportObjectsAsGeoJSON(folder.resolve(name).toFile(), objects, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        table.note(slide, name, frame)
        String what = objects.size() == 1 ? '1 annotation' : "${objects.size()} annotations"
        "${what} written to ${folder.resolve(name)}, and the slide noted in cohort.csv there. " +
            'Put the patient or tumor of each slide into its column group, and train, val or test into split, then run: ' +
            "hepamap dataset build cohort.csv --out dataset${frame == null ? '\n\n' + FRAME_UNKNOWN : ''}"
    }

    /** QuPath counts from the corner of the slide's bounds, unless it was told not to crop; only the server can tell, null: it did not. */
    private static String frameOf(imageData) {
        try {
            Map seen = SlideOnServer.resolve(imageData, new ServerCalls(new Work()))
            String name = seen.slide?.frame?.name
            return name == null ? null : name == 'level0' ? 'level0' : 'qupath'
        } catch (Trouble unknown) {
            return null
        }
    }
}

/** cohort.csv, as we wrote it or as a spreadsheet saved it: with commas or semicolons, with columns added or moved. */
class CohortTable {
    static final List COLUMNS = ['slide', 'annotations', 'group', 'split', 'unannotated', 'frame']

    final Path file
    String separator = ','
    List<String> columns = COLUMNS
    /** Cells by the names of their columns. */
    List<Map> rows = []

    CohortTable(Path file) { this.file = file }

    static CohortTable read(Path file) {
        def table = new CohortTable(file)
        if (!Files.exists(file)) return table
        List<String> lines
        try {
            lines = Files.readAllLines(file).findAll { it.trim() }
        } catch (CharacterCodingException notUtf8) {
            throw new Trouble("${file} is not in UTF-8. Save it as “CSV UTF-8”, then export again.")
        }
        if (lines.isEmpty()) return table
        String head = lines[0].replace('\ufeff', '')
        table.separator = head.contains(';') ? ';' : ','
        table.columns = cells(head, table.separator)*.trim()
        if (!table.columns.containsAll(COLUMNS)) {
            throw new Trouble("${file} is another table than hepamap's. Choose another folder, or move that file away.")
        }
        table.rows = lines.drop(1).collect { line ->
            List found = cells(line, table.separator)
            Map row = [:]
            table.columns.eachWithIndex { column, index -> row[column] = index < found.size() ? found[index] : '' }
            row
        }
        table
    }

    /** Which file the slide's annotations go into: its own, where it has one, and none that is another slide's. */
    String nameFor(String slide, String title) {
        String own = rows.find { it.slide == slide }?.annotations
        if (own && Paths.get(own).getNameCount() == 1 && !Paths.get(own).isAbsolute()) return own
        Set taken = rows.findAll { it.slide != slide }.collect { it.annotations.toLowerCase(Locale.ROOT) } as Set
        // Slides of one name differ in the folders that they are in: as many of these as are needed.
        List folders = slide.replace('\\', '/').tokenize('/').dropRight(1).collect { it.replaceAll(/[:*?"<>|,;]+/, '_') }
        List names = (0..folders.size()).collect { count ->
            (count == 0 ? title : "${title} (${folders.takeRight(count).join('_')})") + '.geojson'
        }
        names.find { !(it.toLowerCase(Locale.ROOT) in taken) } ?: "${title} (${Integer.toHexString(slide.hashCode())}).geojson"
    }

    /** Add the slide, or change what we know of it; group, split and what else a person wrote into its row stay. */
    void note(String slide, String annotations, String frame) {
        Map row = rows.find { it.slide == slide }
        if (row == null) {
            row = [slide: slide, group: new File(slide).name, split: 'train', unannotated: 'ignore', frame: 'qupath']
            rows << row
        }
        row.annotations = annotations
        if (frame != null) row.frame = frame
        List lines = [columns] + rows.collect { one -> columns.collect { one[it] ?: '' } }
        Files.write(file, lines.collect { line -> line.collect { quoted(it) }.join(separator) + '\n' }.join('').getBytes('UTF-8'))
    }

    private static List<String> cells(String line, String separator) {
        List found = []
        def cell = new StringBuilder()
        boolean inside = false
        for (int at = 0; at < line.length(); at++) {
            String sign = line[at]
            if (sign == '"' && inside && at + 1 < line.length() && line[at + 1] == '"') {
                cell.append(sign)
                at++
            } else if (sign == '"') {
                inside = !inside
            } else if (sign == separator && !inside) {
                found << cell.toString()
                cell.setLength(0)
            } else {
                cell.append(sign)
            }
        }
        found + cell.toString()
    }

    private static String quoted(String cell) { cell =~ /[",;\n]/ ? '"' + cell.replace('"', '""') + '"' : cell }
}
