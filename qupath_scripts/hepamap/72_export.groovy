/*
 * Export: a person's annotations as GeoJSON, with a table that hepamap's training reads.
 */
import java.nio.file.Files
import java.nio.file.Path
import qupath.lib.io.PathIO

class AnnotationExport {
    static final String HEAD = 'slide,annotations,group,split,unannotated,frame'

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
        String name = OpenImage.title(imageData).replaceAll(/[\\\/:*?"<>|,]+/, '_') + '.geojson'
        PathIO.exportObjectsAsGeoJSON(folder.resolve(name).toFile(), objects, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        note(folder.resolve('cohort.csv'), slide, name, frameOf(imageData))
        String what = objects.size() == 1 ? '1 annotation' : "${objects.size()} annotations"
        "${what} written to ${folder.resolve(name)}, and the slide noted in cohort.csv there. " +
            'Put the patient or tumor of each slide into its column group, and train, val or test into split, then run: ' +
            'hepamap dataset build cohort.csv --out dataset'
    }

    /** QuPath counts from the corner of the slide's bounds, unless it was told not to crop; only the server can tell. */
    private static String frameOf(imageData) {
        try {
            def calls = new ServerCalls(new Work())
            Map seen = SlideOnServer.resolve(imageData, calls)
            return seen.slide?.frame?.name == 'level0' ? 'level0' : 'qupath'
        } catch (Trouble unknown) {
            return 'qupath'
        }
    }

    private static void note(Path table, String slide, String annotations, String frame) {
        List<String> lines = Files.exists(table) ? Files.readAllLines(table) : [HEAD]
        if (lines.isEmpty() || lines[0] != HEAD) {
            throw new Trouble("${table} is another table than hepamap's. Choose another folder, or move that file away.")
        }
        String row = [slide, annotations, new File(slide).name, 'train', 'ignore', frame].collect { quoted(it) }.join(',')
        lines = lines.findAll { !it.startsWith(quoted(slide) + ',' + quoted(annotations) + ',') } + [row]
        Files.write(table, (lines.join('\n') + '\n').getBytes('UTF-8'))
    }

    private static String quoted(String cell) { cell =~ /[",\n]/ ? '"' + cell.replace('"', '""') + '"' : cell }
}
